"""The committed notebooks: run from top to bottom, small, and without a trace of the machine they ran on.

That they run, `docs/execute_notebooks.py` finds out in CI.
"""

import json
import re
from itertools import pairwise
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
LARGEST = 600_000  # bytes
PATH = re.compile(r"/(?:root|home|tmp|Users|work)/\w")


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request) -> Path:
    return request.param


@pytest.fixture
def cells(path) -> list[dict]:
    return json.loads(path.read_text())["cells"]


def test_there_are_four():
    assert [path.name[0] for path in NOTEBOOKS] == ["1", "2", "3", "4"]


def test_was_run_from_top_to_bottom_without_an_error(cells):
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert not [output for cell in code for output in cell["outputs"] if output["output_type"] == "error"]


def test_shows_pictures(cells):
    kinds = {kind for cell in cells for output in cell.get("outputs", []) for kind in output.get("data", {})}
    assert kinds & {"image/png", "image/jpeg"}


def test_is_small_and_tells_nothing_of_the_machine(path, cells):
    assert path.stat().st_size < LARGEST
    assert not PATH.search(path.read_text())
    assert not [cell for cell in cells if cell["metadata"]]  # of times of execution


def test_begins_with_a_title_and_ends_with_something_to_try(cells):
    text = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
    assert text[0].startswith("# ")
    assert "\n## Try it\n" in text[-1]


def test_every_cell_of_code_is_introduced_by_text(cells):
    kinds = [cell["cell_type"] for cell in cells]
    assert kinds[0] == "markdown"
    assert ("code", "code") not in pairwise(kinds)


def test_the_quick_start_needs_few_imports():
    cells = json.loads(NOTEBOOKS[0].read_text())["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    assert len(re.findall(r"^\s*(?:import|from) ", code, re.MULTILINE)) <= 4


def test_links_to_other_notebooks_hold(cells):
    linked = re.findall(r"\]\((\w+\.ipynb)\)", "\n".join("".join(cell["source"]) for cell in cells))
    assert set(linked) <= {path.name for path in NOTEBOOKS}
