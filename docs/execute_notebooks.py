"""Execute the notebooks, and fail where one fails: `python docs/execute_notebooks.py`; with `--write` keep the outputs.

Each runs in an empty folder, without the Hub. What is kept is small and says nothing of the machine: no progress bars,
no times of execution, no paths, compressed pictures.
"""

import argparse
import base64
import io
import os
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
from nbclient import NotebookClient
from PIL import Image

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
COLOURS_OF_DRAWINGS = 8192  # at most, with their soft edges
SECONDS = 600  # of a cell
# One thread each, as many notebooks at once as there are cores: faster, and the figures do not depend on their number.
ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1", "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


def execute(path: Path, write: bool) -> float:
    """Run a notebook; returns the seconds it took."""
    notebook = nbformat.read(path, as_version=4)
    start = time.perf_counter()
    with TemporaryDirectory() as folder:
        NotebookClient(
            notebook,
            timeout=SECONDS,
            kernel_name="python3",
            record_timing=False,
            coalesce_streams=True,
            resources={"metadata": {"path": folder}},
        ).execute()
        for cell in notebook.cells:
            cell.metadata.pop("execution", None)
            for output in cell.get("outputs", []):
                _shrink(output.get("data", {}))
        notebook.metadata = {"kernelspec": notebook.metadata.kernelspec, "language_info": {"name": "python"}}
    if write:
        path.write_text(nbformat.writes(notebook) + "\n")
    return time.perf_counter() - start


def _shrink(data: dict) -> None:
    """Photographs as JPEG, drawings as PNG with a palette."""
    if "image/png" not in data:
        return
    picture, shrunk = Image.open(io.BytesIO(base64.b64decode(data.pop("image/png")))).convert("RGB"), io.BytesIO()
    if picture.getcolors(COLOURS_OF_DRAWINGS) is None:
        kind = "image/jpeg"
        picture.save(shrunk, "JPEG", quality=88, optimize=True)
    else:
        kind = "image/png"
        picture.quantize(256).save(shrunk, "PNG", optimize=True)
    data[kind] = base64.b64encode(shrunk.getvalue()).decode()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="Keep the outputs in the notebooks.")
    parser.add_argument("names", nargs="*", help="Notebooks; by default all.")
    args = parser.parse_args()
    os.environ |= ENVIRONMENT
    paths = [NOTEBOOKS / name for name in args.names] or sorted(NOTEBOOKS.glob("*.ipynb"))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for path, seconds in zip(paths, pool.map(partial(execute, write=args.write), paths), strict=True):
            print(f"{path.name}: {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
