"""A checkpoint that is not as it was written, or another run's, is refused: names the file or the setting."""

import errno
import json
import os
import shutil

import pytest
import torch
from conftest import Squares, resnet
from safetensors.torch import load_file
from torch.utils.data import Subset
from transformers.trainer_utils import get_last_checkpoint

from clp_hf.base import checkpoints, disk
from clp_hf.base.checkpoints import MANIFEST, newest_whole

METHODS = {
    "clp": {"counterfactual_infills": ["tile"], "factual_infills": [], "meta_samples": 2},
    "group_dro": {"meta_every": 0, "training_loss": "group_dro"},
    "erm": {"meta_every": 0},
}
SETTINGS = {"save_strategy": "steps", "save_steps": 1, "max_steps": 3}


def parameters(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def files_of(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGES = {"flipped": flip, "cut": cut, "deleted": lambda path: path.unlink()}


@pytest.mark.parametrize("method", METHODS)
def test_no_damage_to_a_checkpoint_changes_a_result(make_trainer, tmp_path, method):
    """Every file, flipped, cut and deleted: refused by name, or, the manifest deleted, the result is the same."""
    settings = SETTINGS | METHODS[method]
    whole = make_trainer(**settings)
    whole.train()
    run, expected = tmp_path / "run", parameters(whole.model)
    names = files_of(run / "checkpoint-2")
    assert MANIFEST in names
    assert {"model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"} <= set(names)
    trainer = make_trainer(**settings)
    untouched = tmp_path / "untouched"
    shutil.copytree(run / "checkpoint-2", untouched)
    for name in names:
        for kind, damage in DAMAGES.items():
            shutil.rmtree(run / "checkpoint-2")
            shutil.copytree(untouched, run / "checkpoint-2")
            damage(run / "checkpoint-2" / name)
            if name == MANIFEST and kind == "deleted":  # as of a version that wrote none
                trainer = make_trainer(**settings)
                trainer.train(resume_from_checkpoint=str(run / "checkpoint-2"))
                assert torch.equal(parameters(trainer.model), expected)
                continue
            with pytest.raises(ValueError, match=rf"{name}.*checkpoint-3, which is whole"):
                trainer.train(resume_from_checkpoint=str(run / "checkpoint-2"))


def test_a_damaged_best_checkpoint_is_not_loaded(make_trainer, tmp_path, monkeypatch):
    trainer = make_trainer(**SETTINGS, meta_every=0, eval_strategy="steps", eval_steps=1, load_best_model_at_end=True)
    load = trainer._load_best_model

    def load_damaged():
        flip(tmp_path / "run" / os.path.basename(trainer.state.best_model_checkpoint) / "model.safetensors")
        load()

    monkeypatch.setattr(trainer, "_load_best_model", load_damaged)
    with pytest.raises(ValueError, match=r"is damaged: model.safetensors is not what was written. Resume from"):
        trainer.train()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learning_rate": 0.02}, "learning_rate was 0.01, is 0.02"),
        ({"seed": 1}, "seed was 42, is 1"),
        ({"meta_every": 0, "training_loss": "focal"}, "training_loss"),
        ({"saliency_weight": 0.5}, "saliency_weight was 0.0, is 0.5"),
        ({"train_dataset": Squares(66)}, "training set images was 54, is 60"),
        ({"train_dataset": Squares(60, columns=("mask",)), "meta_samples": 4}, "training set"),
        ({"model": resnet()}, "architecture was 'ViT"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(make_trainer, tmp_path, change, message):
    settings = SETTINGS | {"meta_samples": 1, "meta_batch_size": 6}
    make_trainer(**settings).train()
    trainer = make_trainer(**settings | change)
    checkpoint = str(tmp_path / "run" / "checkpoint-2")
    expected = "training_loss='focal'" if message == "training_loss" else f"another run: .*{message}"
    with pytest.raises(ValueError, match=expected):
        trainer.train(resume_from_checkpoint=checkpoint)


def test_what_changes_no_result_may_change(make_trainer, tmp_path):
    make_trainer(**SETTINGS).train()
    trainer = make_trainer(**SETTINGS | {"max_steps": 4}, on_nonfinite="skip", recompute_training_forward=True)
    trainer.train(resume_from_checkpoint=True)
    assert trainer.state.global_step == 4


def test_a_new_run_moves_an_earlier_one_aside_and_is_not_resumed_from_it(make_trainer, tmp_path):
    make_trainer(**SETTINGS | {"max_steps": 8, "save_steps": 4, "meta_every": 0}).train()
    short = make_trainer(**SETTINGS | {"meta_every": 0, "save_total_limit": 2})
    short.train()
    run = tmp_path / "run"
    assert sorted(path.name for path in run.glob("checkpoint-*")) == ["checkpoint-2", "checkpoint-3"]
    assert sorted(path.name for path in run.glob("_earlier/1/*")) == ["checkpoint-4", "checkpoint-8"]
    assert get_last_checkpoint(str(run)).endswith("checkpoint-3")
    with pytest.raises(ValueError, match="checkpoint is of step 8, and this run ends at step 3"):
        short.train(resume_from_checkpoint=str(run / "_earlier" / "1" / "checkpoint-8"))


def test_a_kill_while_an_old_checkpoint_is_deleted_leaves_no_half_of_one(make_trainer, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def half(path, **kwargs):
        if path.endswith("-deleted"):
            next(p for p in tmp_path.rglob("optimizer.pt") if str(p).startswith(path)).unlink()
            raise Killed

    trainer = make_trainer(**SETTINGS, save_total_limit=1)
    monkeypatch.setattr(checkpoints.shutil, "rmtree", half)
    with pytest.raises(Killed):
        trainer.train()
    monkeypatch.undo()
    assert [path.name for path in (tmp_path / "run").glob("checkpoint-*")] == ["checkpoint-2"]
    assert newest_whole(tmp_path / "run").endswith("checkpoint-2")
    make_trainer(**SETTINGS, save_total_limit=1).train(resume_from_checkpoint=True)
    assert not list((tmp_path / "run").glob("_incomplete*"))


def test_a_manifest_is_of_all_files_and_no_part_of_the_model(make_trainer, tmp_path):
    trainer = make_trainer(**SETTINGS)
    trainer.train()
    checkpoint = tmp_path / "run" / "checkpoint-3"
    manifest = json.loads((checkpoint / MANIFEST).read_text())
    assert sorted([*manifest["files"], MANIFEST]) == files_of(checkpoint)
    assert manifest["run"]["settings"]["seed"] == 42
    assert "hub_token" not in (checkpoint / MANIFEST).read_text()
    assert load_file(checkpoint / "model.safetensors").keys()
    assert type(trainer.model).from_pretrained(checkpoint)


# ---- the disk --------------------------------------------------------------------------------------------------------


def usage(free):
    return lambda folder: shutil._ntuple_diskusage(10**9, 10**9 - free, free)


def test_a_disk_without_room_is_refused_before_training(make_trainer, monkeypatch):
    trainer = make_trainer(**SETTINGS)
    monkeypatch.setattr(disk.shutil, "disk_usage", usage(1000))
    with pytest.raises(ValueError, match=r"has 0.0 MB free, and a checkpoint takes about 0.\d MB"):
        trainer.train()
    assert trainer.state.global_step == 0


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("unexpected pos 64 vs 0")], ids=str
)
def test_a_disk_that_fills_up_is_said_to_be_full(make_trainer, tmp_path, monkeypatch, error):
    trainer, save = make_trainer(**SETTINGS), torch.save

    def full(state, path, **kwargs):
        if trainer.state.global_step == 2:
            monkeypatch.setattr(disk.shutil, "disk_usage", usage(10))
            raise error
        save(state, path, **kwargs)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match=r"disk is full: writing.*0.0 MB free.*checkpoint-1 is whole") as caught:
        trainer.train()
    assert caught.value.errno == errno.ENOSPC
    assert [path.name for path in (tmp_path / "run").glob("*checkpoint*")] == ["checkpoint-1"]
    assert not list((tmp_path / "run").glob("_incomplete*"))


def test_another_error_stays_as_it_is(make_trainer, monkeypatch):
    trainer = make_trainer(**SETTINGS)
    monkeypatch.setattr(torch, "save", lambda *args, **kwargs: (_ for _ in ()).throw(RuntimeError("unexpected pos")))
    with pytest.raises(RuntimeError, match="unexpected pos"):
        trainer.train()


def test_a_folder_that_cannot_be_written_is_refused(make_trainer, monkeypatch):
    def refuse(dir):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(disk.tempfile, "TemporaryFile", refuse)
    with pytest.raises(ValueError, match=r"output_dir .* cannot be written: Permission denied"):
        make_trainer()


# ---- runs of no step -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["clp", "erm"])
@pytest.mark.parametrize("steps", [3, -1])
def test_a_run_without_a_batch_is_refused(make_trainer, method, steps):
    settings = METHODS[method] | {"max_steps": steps, "num_train_epochs": 2}
    trainer = make_trainer(**settings, per_device_train_batch_size=64, dataloader_drop_last=True)
    with pytest.raises(ValueError, match=r"no batch to train on: the training set has \d+ images"):
        trainer.train()


def test_a_run_of_no_epoch_is_refused(make_trainer):
    with pytest.raises(ValueError, match="no step to train: max_steps is -1"):
        make_trainer(meta_every=0, max_steps=-1, num_train_epochs=0).train()


@pytest.mark.parametrize("method", METHODS)
def test_a_class_without_a_training_image_is_refused(make_trainer, method):
    data = Subset(Squares(60), [index for index in range(60) if index % 3 != 1])
    with pytest.raises(ValueError, match=r"training set has no image of class 1 \(LABEL_1\)|group_dro|class 1"):
        make_trainer(train_dataset=data, meta_dataset=Squares(12, start=500), **METHODS[method])
