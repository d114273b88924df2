"""A run that is stopped, however rudely, and resumed is the uninterrupted run."""

import itertools
import json
import multiprocessing
import os
import re
import shutil
import signal
from functools import partial

import numpy as np
import pytest
import torch
from conftest import SIZE, Squares, vit
from safetensors.torch import load_file
from transformers import TrainerCallback, ViTImageProcessor
from transformers.trainer_utils import get_last_checkpoint

from clp_hf import CLPTrainer, CLPTrainingArguments


class Kill(TrainerCallback):
    def __init__(self, at_step):
        self.at_step = at_step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.at_step:
            os.kill(os.getpid(), signal.SIGKILL)


class Noisy(Squares):
    """Augmented at random: a resumed run must see the same noise."""

    def __getitem__(self, index):
        item = super().__getitem__(index)
        item["pixel_values"] = item["pixel_values"] + 0.1 * torch.randn(()) + 0.1 * np.random.randn()
        return item


def train(output, resume, at_step, at_file):
    """A whole run, which kills its process after a step, or instead of writing some file."""
    save, count = torch.save, itertools.count(1)

    def saving(*args, **kwargs):
        if next(count) == at_file:
            os.kill(os.getpid(), signal.SIGKILL)
        save(*args, **kwargs)

    torch.save = saving
    args = CLPTrainingArguments(
        output, per_device_train_batch_size=8, max_steps=9, learning_rate=1e-2, save_strategy="steps", save_steps=1,
        use_cpu=True, disable_tqdm=True, report_to=[], logging_steps=1, evidence=["background"], save_total_limit=2,
        counterfactual_infills=["random", "tile"], factual_infills=["mix_rand", "shuffle"], warmup_steps=3,
    )  # fmt: skip
    trainer = CLPTrainer(
        vit(hidden_dropout_prob=0.1),
        args,
        train_dataset=Noisy(60),
        meta_dataset=Noisy(12, start=500),
        callbacks=[Kill(at_step)],
        processing_class=ViTImageProcessor(size={"height": SIZE, "width": SIZE}),
    )
    trainer.train(resume_from_checkpoint=resume)


def run(output, resume=False, at_step=-1, at_file=-1) -> int:
    """The exit code of a process of its own; a fork, which need not import everything again."""
    process = multiprocessing.get_context("fork").Process(target=train, args=(str(output), resume, at_step, at_file))
    process.start()
    process.join()
    return process.exitcode


def result(output):
    """Everything that a checkpoint holds: weights, Ω, both optimizers, schedule, statistics, random states."""
    last = get_last_checkpoint(output)
    names = [os.path.relpath(os.path.join(folder, name), last) for folder, _, own in os.walk(last) for name in own]
    loaders = {".pt": partial(torch.load, weights_only=False), ".pth": partial(torch.load, weights_only=False)}
    loaders[".safetensors"] = load_file
    state = {
        name: loaders[ending](os.path.join(last, name))
        for name in names
        if (ending := os.path.splitext(name)[1]) in loaders
    }
    with open(os.path.join(last, "trainer_state.json")) as file:
        state["log"] = json.load(file)["log_history"]
    return state


def assert_same(a, b, path=""):
    assert type(a) is type(b), path
    if isinstance(a, dict):
        assert a.keys() == b.keys(), path
        for key in a:
            assert_same(a[key], b[key], f"{path}/{key}")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), path
        for number, pair in enumerate(zip(a, b, strict=True)):
            assert_same(*pair, f"{path}/{number}")
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), path
    elif hasattr(a, "tolist"):
        assert a.tolist() == b.tolist(), path
    else:
        assert a == b, path


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    output = tmp_path_factory.mktemp("whole")
    assert run(output) == 0
    return result(output)


# torch.save writes optimizer, scheduler, meta state and random states; a checkpoint is 5 of them with training_args.bin
@pytest.mark.parametrize("where", [{"at_step": 3}, {"at_file": 12}, {"at_file": 14}, {"at_file": 15}])
def test_a_killed_run_resumes_as_if_nothing_had_happened(whole, tmp_path, where):
    assert run(tmp_path, **where) == -signal.SIGKILL
    left = get_last_checkpoint(str(tmp_path))
    assert left.endswith("checkpoint-2")
    assert os.path.isfile(os.path.join(left, "trainer_state.json"))
    assert run(tmp_path, resume=True) == 0
    assert sorted(name for name in os.listdir(tmp_path) if re.search("checkpoint|incomplete", name)) == [
        "checkpoint-8",
        "checkpoint-9",
    ]
    found, expected = result(tmp_path), dict(whole)
    for log in (found.pop("log"), expected.pop("log")):
        assert len(log) == 9
    assert_same(found, expected)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    output = tmp_path_factory.mktemp("checkpoint")
    run(output, at_step=3)
    return output / "checkpoint-2"


@pytest.mark.parametrize(
    "missing",
    ["perturbation_network/model.safetensors", "perturbation_network/config.json", "meta_state.pt"],
)
def test_a_checkpoint_without_a_file_is_refused(make_trainer, checkpoint, tmp_path, missing):
    shutil.copytree(checkpoint, tmp_path / "checkpoint-2")
    (tmp_path / "checkpoint-2" / missing).unlink()
    with pytest.raises(ValueError, match=f"not a complete checkpoint of a CLP run: {missing} is missing"):
        make_trainer().train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))


def test_a_checkpoint_of_other_settings_is_refused(make_trainer, checkpoint):
    trainer = make_trainer(perturbation_hidden_size=7)
    with pytest.raises(ValueError, match="Resume with the settings of the run"):
        trainer.train(resume_from_checkpoint=str(checkpoint))


def test_the_best_checkpoint_is_known_by_its_final_name(make_trainer, tmp_path):
    trainer = make_trainer(
        eval_strategy="steps", eval_steps=1, save_strategy="steps", save_steps=1, load_best_model_at_end=True,
        metric_for_best_model="loss", save_total_limit=1,
    )  # fmt: skip
    trainer.train()
    best = f"checkpoint-{trainer.state.best_global_step}"
    assert trainer.state.best_model_checkpoint == str(tmp_path / "run" / best)
    assert best in os.listdir(tmp_path / "run")
    last = get_last_checkpoint(str(tmp_path / "run"))
    with open(os.path.join(last, "trainer_state.json")) as file:
        assert json.load(file)["best_model_checkpoint"] == str(tmp_path / "run" / best)


def test_plain_sgd_of_the_perturbation_network_resumes(make_trainer, tmp_path):
    def trained(output, resume=None, **settings):
        trainer = make_trainer(
            output_dir=str(tmp_path / output), save_strategy="steps", save_steps=2, perturbation_learning_rate=0.1,
            **{"perturbation_optim": "sgd"} | settings,
        )  # fmt: skip
        trainer.train(resume_from_checkpoint=resume)
        return result(tmp_path / output)

    whole = trained("whole")
    (group,) = whole["meta_state.pt"]["optimizer"]["param_groups"]
    assert (group["lr"], group["momentum"]) == (0.1, 0)
    checkpoint = str(tmp_path / "whole" / "checkpoint-2")
    resumed = trained("resumed", checkpoint)
    for state in (whole, resumed):
        state.pop("log")
        state.pop("training_args.bin", None)
    assert_same(resumed, whole)
    with pytest.raises(ValueError, match="perturbation_optim was 'sgd', is 'adamw'"):
        trained("other", checkpoint, perturbation_optim="adamw")
