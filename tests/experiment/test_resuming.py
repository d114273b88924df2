"""Which checkpoint a command goes on from: the newest of every run, or the one that is named."""

import json
import sys
from pathlib import Path

import pytest
from test_processes import SETTINGS
from test_recipes import grouped, to_folder
from transformers.trainer import TRAINER_STATE_NAME

from clp_hf import CLPTrainer
from clp_hf.experiment import MethodArguments, run_recipe
from clp_hf.experiment.launch import run_here
from clp_hf.experiment.resuming import checkpoints


@pytest.fixture
def folders(tmp_path):
    """Of two runs, the first with two checkpoints."""
    for step in (2, 10):
        (tmp_path / "erm" / f"checkpoint-{step}").mkdir(parents=True)
        (tmp_path / "erm" / f"checkpoint-{step}" / TRAINER_STATE_NAME).write_text("{}")
    return {name: str(tmp_path / name) for name in ("erm", "clp")}


@pytest.mark.parametrize("asked", ["true", "True", "last"])
def test_every_run_goes_on_from_its_own_newest_checkpoint(folders, asked):
    newest = f"{folders['erm']}/checkpoint-10"
    assert checkpoints(asked, {"erm": folders["erm"]}) == {"erm": newest}
    assert checkpoints(asked, folders) == {"erm": newest, "clp": None}
    with pytest.raises(ValueError, match=f"--resume_from_checkpoint {asked}: there is no checkpoint in .*/clp."):
        checkpoints(asked, {"clp": folders["clp"]})


@pytest.mark.parametrize("asked", [None, "false", "False"])
def test_no_is_no(folders, asked):
    assert checkpoints(asked, folders) == {"erm": None, "clp": None}


def test_a_checkpoint_by_its_folder(folders):
    one = {"erm": folders["erm"]}
    named = f"{folders['erm']}/checkpoint-2"
    assert checkpoints(named, one) == {"erm": named}
    with pytest.raises(ValueError, match="is one checkpoint for the 2 runs erm, clp"):
        checkpoints(named, folders)
    with pytest.raises(ValueError, match=r"there is no folder '.*/checkpoint-3'. Give .* newest one in .*/erm"):
        checkpoints(f"{folders['erm']}/checkpoint-3", one)
    with pytest.raises(ValueError, match=r"is a run's folder, and not a checkpoint. Its newest one is .*checkpoint-10"):
        checkpoints(folders["erm"], one)
    Path(folders["clp"]).mkdir()
    with pytest.raises(ValueError, match=r"has no trainer_state\.json"):
        checkpoints(folders["clp"], one)


def test_what_is_missing_is_found_out_before_the_data_is_read(tmp_path, monkeypatch):
    flags = ["--use_cpu", "true", "--resume_from_checkpoint", str(tmp_path / "checkpoint-2")]
    monkeypatch.setattr(sys, "argv", ["recipe", *flags])

    def build(*args):
        raise AssertionError("the data was read")

    with pytest.raises(ValueError, match="there is no folder"):
        run_recipe(MethodArguments, "A recipe.", {"output_dir": str(tmp_path)}, build)


@pytest.mark.slow
def test_an_interrupted_comparison_goes_on(tmp_path, monkeypatch):
    """By a settings file; the second method had not begun."""
    splits = {name: grouped(n, label=[0, 0, 1, 1]) for name, n in (("train", 8), ("validation", 3))}
    settings = SETTINGS | {
        "dataset_name": to_folder(tmp_path / "data", **splits), "output_dir": str(tmp_path / "run"), "compare": True,
        "use_cpu": True, "per_device_train_batch_size": 8, "max_steps": 4, "save_total_limit": 3,
    }  # fmt: skip
    resumed = []
    train = CLPTrainer.train

    def watched(self, resume_from_checkpoint=None):
        resumed.append(resume_from_checkpoint)
        return train(self, resume_from_checkpoint)

    def run(**changes):
        (tmp_path / "settings.json").write_text(json.dumps(settings | changes))
        monkeypatch.setattr(sys, "argv", list(sys.argv))
        monkeypatch.setattr(sys, "path", list(sys.path))
        run_here("waterbirds", [str(tmp_path / "settings.json")], "clp-hf train waterbirds")

    monkeypatch.setattr(CLPTrainer, "train", watched)
    run(method="erm", compare=False, output_dir=str(tmp_path / "run" / "erm"))
    run(resume_from_checkpoint=True)
    assert resumed == [None, str(tmp_path / "run" / "erm" / "checkpoint-4"), None]
    assert (tmp_path / "run" / "meta_lp" / "checkpoint-4").is_dir()
