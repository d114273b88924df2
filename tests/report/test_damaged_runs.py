"""Reports of run folders that were damaged or edited by hand: a report, or an error that names file and field."""

import json
import shutil
from functools import partial
from itertools import cycle, islice
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")

from clp_hf.hub import RunRecord
from clp_hf.report import write_report

FROZEN = Path(__file__).parents[1] / "frozen"
FILES = ("_run.json", "trainer_state.json", "all_results.json")
METHODS = ("clp", "group_dro", "hsfm")
GONE = object()
DAMAGES = {
    "gone": GONE, "null": None, "text": "x", "number": -1.5, "list": [1], "object": {"a": 1}, "true": True,
    "not a number": float("nan"), "infinite": float("inf"), "huge": 10**400,
}  # fmt: skip


def name_everything(record):
    """Fields that recipes fill, and a trainer on its own leaves empty."""
    names = record["group_names"]
    record |= {"dataset": "birds", "model": "a/b", "command": "clp-hf train waterbirds"}
    record["images"] = {"train images": dict.fromkeys(names, 5)}
    record["masks"] = {"test": {"images": 9, "empty": 1, "full": 1, "indices": [3, 4]}}
    record["settings"]["data and model"] = {"image_size": 32}


@pytest.fixture(params=METHODS)
def folder(request, tmp_path):
    shutil.copytree(FROZEN / request.param, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoint-*"))
    edit(tmp_path / "run" / "_run.json", name_everything)
    return tmp_path / "run"


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def put(content, place, value):
    """Set or remove what lies at a place of nested objects and lists."""
    *way, last = place
    for key in way:
        content = content[key]
    if value is GONE:
        content.pop(last)
    else:
        content[last] = value


def report(folder):
    """The page, or what the error says."""
    try:
        return write_report([folder], folder / "report.html").read_text(encoding="utf-8")
    except ValueError as error:
        return str(error)


def places(content, path=()):
    """The way to every value of nested objects, and to the first two of lists."""
    items = content.items() if isinstance(content, dict) else enumerate(content[:2])
    for key, value in items:
        yield (*path, key)
        if isinstance(value, (dict, list)):
            yield from places(value, (*path, key))


@pytest.fixture
def _no_pictures(monkeypatch):
    """Drawing takes a second; what is drawn are numbers that have been checked."""
    monkeypatch.setattr("clp_hf.report.page.run_pictures", lambda *args: [])


@pytest.mark.parametrize("file", FILES)
@pytest.mark.usefixtures("_no_pictures")
def test_a_damaged_value_is_named_or_does_no_harm(folder, file):
    path = folder / file
    whole = path.read_text()
    damages = cycle(DAMAGES.items())
    found = [place for place in places(json.loads(whole)) if place[:2] != ("settings", "method") or len(place) == 2]
    for place in found[:: 1 if file == "_run.json" else 4]:
        for name, value in islice(damages, 2):
            edit(path, partial(put, place=place, value=value))
            said = report(folder)  # anything but a ValueError fails here
            assert said.startswith("<!DOCTYPE html>") or path.name in said, (place, name)
            path.write_text(whole)


@pytest.mark.usefixtures("_no_pictures")
def test_a_lost_or_wrong_field_of_the_record_is_named(folder):
    path = folder / "_run.json"
    whole = path.read_text()
    for field in json.loads(whole):
        for value in (GONE, 7):
            edit(path, partial(put, place=[field], value=value))
            with pytest.raises(ValueError, match=f"_run.json: {field}"):
                write_report([folder], folder / "report.html")
            path.write_text(whole)
    for part, field in (("cost", "processes"), ("selection", "max_steps"), ("settings", "training")):
        edit(path, partial(put, place=[part, field], value=GONE))
        with pytest.raises(ValueError, match=f"_run.json: {part}.{field}: Field required"):
            RunRecord.load(folder)
        path.write_text(whole)


@pytest.mark.parametrize("folder", ["clp"], indirect=True)
@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b"\xff\xfe\x00", b"[" * 100_000, b'{"log_history": {}, "test_accuracy": []}']
)
def test_a_file_that_is_no_record_log_or_results_is_named(folder, file, content):
    (folder / file).write_bytes(content)
    with pytest.raises(ValueError, match=file):
        write_report([folder], folder / "report.html")


@pytest.mark.parametrize("folder", ["clp", "weight"], indirect=True)
def test_a_damaged_network_is_named(folder):
    network = next(path for path in folder.iterdir() if path.name.endswith("_network"))
    for file in sorted(network.iterdir()):
        whole = file.read_bytes()
        for content in (b"", b"{", whole[: len(whole) // 2]):
            file.write_bytes(content)
            with pytest.raises(ValueError, match=f"{network.name} does not hold the network of this run"):
                write_report([folder], folder / "report.html")
        file.write_bytes(whole)


@pytest.mark.parametrize("folder", ["clp"], indirect=True)
def test_numbers_that_are_none_are_drawn_and_told(folder):
    def diverge(state):
        for entry, value in zip(
            state["log_history"], cycle([float("nan"), float("inf"), -float("inf"), 1e308]), strict=False
        ):
            entry |= {name: value for name in entry if name not in ("step", "epoch")}

    edit(folder / "trainer_state.json", diverge)
    edit(folder / "all_results.json", lambda found: found.update(eval_accuracy=float("nan"), eval_ece=float("inf")))
    assert "nan" in report(folder)


@pytest.mark.parametrize("folder", ["clp"], indirect=True)
@pytest.mark.parametrize("name", ["x" * 1_000_000, "<script>alert(1)</script>", "_$x^$|a\nb\ud800\x00", "runtime"])
def test_names_of_any_kind_and_length_are_shown(folder, name):
    record = json.loads((folder / "_run.json").read_text())
    old = record["group_names"][0]

    def rename(path):
        text = path.read_text()
        path.write_text(text.replace(f'{old}"', f'{json.dumps(name)[1:-1]}"'))

    for file in FILES:
        rename(folder / file)
    edit(folder / "_run.json", lambda found: found.update(dataset=name, model=name, command=name))
    page = report(folder)
    assert page.startswith("<!DOCTYPE html>")
    assert "<script" not in page
    assert len(page) < 3_000_000
    shown = " ".join(name.split())[:20].replace("<", "&lt;").replace(">", "&gt;")
    assert shown in page or "\x00" in name
    assert page.count('<th scope="row">') > 10  # nothing of the tables is lost
