"""What the benchmarks share: peak memory, result files, and means over seeds."""

import json
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from clp_hf.utils.files import write_whole


def peak_memory(function: Callable[[], object]) -> float:
    """Peak memory, in MiB, while `function` runs, above what was held before.

    Resident memory of the process (Linux); where PyTorch's default device is a GPU, what is allocated there.
    """
    if torch.get_default_device().type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        start = torch.cuda.memory_allocated()
        function()
        return (torch.cuda.max_memory_allocated() - start) / 2**20
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far (that of imports and building)
    start = resident_memory()
    function()
    return _memory("VmHWM") - start


def resident_memory() -> float:
    """MiB that the process holds now (Linux)."""
    return _memory("VmRSS")


def _memory(what: str) -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(what))
    return int(line.split()[1]) / 1024


def write_record(path: Path, record: dict) -> None:
    """Write a JSON file; it is there complete or not at all."""
    with write_whole(path) as part:
        part.write_text(json.dumps(record, indent=1))


def seed_records(results: Path) -> list[dict]:
    """The records of a folder that has one file a seed, in the order of their names."""
    return [json.loads(path.read_text()) for path in sorted(results.glob("seed-*.json"))]


def write_table(results: Path, lines: Sequence[str]) -> str:
    """Write lines of Markdown as `table.md` into a folder of records.

    Returns:
        The table.
    """
    table = "\n".join(lines)
    (results / "table.md").write_text(table + "\n")
    return table


def mean_and_spread(shares: Sequence[float]) -> str:
    """Mean ± standard deviation, in percent, of shares in [0, 1]; one share has no deviation."""
    values = [100 * share for share in shares]
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{spread}"


def mark_best(means: Sequence[float], cells: Sequence[str]) -> list[str]:
    """Cells of a Markdown column with the **best** and the <u>second best</u>; more than one where they print equal.

    Args:
        means: shares in [0, 1], the higher the better.
        cells: their texts, with one decimal of a percent.
    """
    printed = [round(100 * mean, 1) for mean in means]
    marks = dict(zip(sorted(set(printed), reverse=True), ("**{}**", "<u>{}</u>"), strict=False))
    return [marks.get(value, "{}").format(cell) for value, cell in zip(printed, cells, strict=True)]
