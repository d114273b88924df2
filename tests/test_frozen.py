"""What earlier code has written is resumed, loaded and reported: formats and published paths hold.

`frozen/` was written by the code of commit 77c295e (`frozen/make.py`) and is not made again.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch
from frozen.make import METHODS, NAMES, SETTINGS, make_trainer
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModelForImageClassification, pipeline

from clp_hf import CLPTrainingArguments, PerturbationNetwork
from clp_hf.hsfm import HSFMArguments
from clp_hf.report import write_report

FROZEN = Path(__file__).parent / "frozen"


def assert_close(found, expected, path=""):
    """Nested states; numbers as far as other processors compute them alike."""
    if isinstance(expected, dict):
        assert set(expected) <= set(found), path
        for key in expected:
            assert_close(found[key], expected[key], f"{path}/{key}")
    elif isinstance(expected, (list, tuple)):
        assert len(found) == len(expected), path
        for number, pair in enumerate(zip(found, expected, strict=True)):
            assert_close(*pair, f"{path}/{number}")
    elif isinstance(expected, torch.Tensor):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6, msg=lambda message: f"{path}: {message}")
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-6), path
    else:
        assert found == expected, path


@pytest.mark.parametrize("name", METHODS)
def test_a_checkpoint_of_before_is_resumed_and_ends_as_it_did_then(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(FROZEN / name / "checkpoint-2", f"{name}/checkpoint-2")
    make_trainer(name, name).train(resume_from_checkpoint=f"{name}/checkpoint-2")
    ended, expected = Path(name) / "checkpoint-4", FROZEN / name / "checkpoint-4"
    for path in sorted(expected.rglob("*.safetensors")):
        assert_close(load_file(ended / path.relative_to(expected)), load_file(path), path.name)
    for path in sorted(expected.glob("*.pt")):
        found, then = (torch.load(folder / path.name, weights_only=True) for folder in (ended, expected))
        then.pop("generators", None)  # compared below, to the bit
        if not METHODS[name].get("background_evidence"):
            then.pop("background_probe", None)  # which had learned nothing
        assert_close(found, then, path.name)
    logs = [json.loads((folder / "trainer_state.json").read_text())["log_history"] for folder in (ended, expected)]
    for entries in logs:
        for entry in entries:
            for key in [key for key in entry if "runtime" in key or "per_second" in key]:
                del entry[key]
    assert_close(*logs, "log")


@pytest.mark.parametrize("name", ["clp", "weight"])
def test_draws_go_on_where_they_stopped(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(FROZEN / name / "checkpoint-2", f"{name}/checkpoint-2")
    make_trainer(name, name).train(resume_from_checkpoint=f"{name}/checkpoint-2")
    found, then = (
        torch.load(folder / "checkpoint-4" / "meta_state.pt", weights_only=True)
        for folder in (Path(name), FROZEN / name)
    )
    assert found["sampler"] == then["sampler"]
    assert all(map(torch.equal, found["generators"], then["generators"]))


def test_a_repository_of_before_loads():
    model = AutoModelForImageClassification.from_pretrained(FROZEN / "hub")
    assert [model.config.id2label[index] for index in range(3)] == NAMES[0]
    answers = pipeline("image-classification", str(FROZEN / "hub"))(Image.new("RGB", (20, 20), "red"))
    assert {answer["label"] for answer in answers} == set(NAMES[0])
    network = PerturbationNetwork.from_pretrained(FROZEN / "hub")
    assert network.characteristics[-1] == "background_margin"
    assert network.recent[0].shape == (32, 11)


def test_arguments_of_before_are_unpickled():
    args = torch.load(FROZEN / "clp" / "training_args.bin", weights_only=False)
    assert type(args) is CLPTrainingArguments
    given = {name: value for name, value in (SETTINGS | METHODS["clp"]).items() if not name.endswith("strategy")}
    assert {name: getattr(args, name) for name in given} == given
    assert args.evidence == ["background"]
    assert args.train_infills == []
    args = torch.load(FROZEN / "hsfm" / "training_args.bin", weights_only=False)
    assert type(args) is HSFMArguments
    assert args.settings.support_size == 4


@pytest.mark.parametrize("name", [*METHODS, "hsfm"])
def test_a_run_of_before_is_reported(name, tmp_path):
    write_report([FROZEN / name], tmp_path / "report.html")
    assert "s_on_dark" in (tmp_path / "report.html").read_text()
