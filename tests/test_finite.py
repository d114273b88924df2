"""Numbers that are not finite: nothing that runs on is moved by them, and training does not go on in silence."""

import copy

import pytest
import torch
from conftest import SIZE, Squares, resnet, vit
from test_mixed_precision import with_scaler
from torch.utils.data import IterableDataset
from transformers import TrainerCallback

from clp_hf.utils.precision import MOST_IN_A_ROW, NonFiniteError

METHODS = {
    "clp": {"evidence": ["background"]},
    "before_perturbation_start": {"perturbation_start": 0.9},
    "weight": {"meta_network": "weight", "counterfactual_infills": [], "factual_infills": []},
    "erm": {"meta_every": 0},
    "group_dro": {"meta_every": 0, "training_loss": "group_dro"},
    "accumulated": {"gradient_accumulation_steps": 2},
}
BAD_STEP = 2


def running_state(trainer):
    """All that a step moves: weights, both optimizers, all statistics and what Ω remembers."""
    state = {"model": trainer.model.state_dict(), "optimizer": trainer.optimizer.state_dict()["state"]}
    learner = trainer.learner
    for name in ("network", "optimizer", "statistics", "evidence", "training_loss"):
        part = getattr(learner, name, None)
        if hasattr(part, "state_dict"):
            state[f"learner's {name}"] = part.state_dict()
    if hasattr(learner, "network"):
        state["recent"] = learner.network.recent
    return copy.deepcopy(state)


def tensors(state, path=""):
    if isinstance(state, torch.Tensor):
        yield path, state
    elif isinstance(state, (dict, list, tuple)):
        for key, value in state.items() if isinstance(state, dict) else enumerate(state):
            yield from tensors(value, f"{path}/{key}")


class Keep(TrainerCallback):
    def __init__(self):
        self.states = {}

    def on_step_end(self, args, state, control, **kwargs):
        self.states[state.global_step] = running_state(self.trainer)


def run(make_trainer, model, spoil=None, scaler=False, bad_steps=(BAD_STEP,), **settings):
    """A run with the state after each step; `spoil` changes the batch of the steps that are bad."""
    keep = Keep()
    trainer = make_trainer(model(), callbacks=[keep], max_grad_norm=0.0, **settings)
    keep.trainer = with_scaler(trainer) if scaler else trainer
    prepare = trainer._prepare_inputs

    def spoiled(inputs):
        inputs = prepare(inputs)
        if spoil is not None and trainer.model.training and trainer.state.global_step in bad_steps:
            inputs = {**inputs, "pixel_values": inputs["pixel_values"].clone()}
            spoil(inputs["pixel_values"])
        return inputs

    trainer._prepare_inputs = spoiled
    return trainer, keep.states


SPOILED = {
    "nan": lambda pixels: pixels[0, 0, 0, 0].fill_(torch.nan),
    "inf": lambda pixels: pixels[-1].fill_(-torch.inf),
    "huge": lambda pixels: pixels[0].fill_(3e38),
}


@pytest.mark.parametrize(
    ("model", "method", "scaler"),
    [
        *((vit, method, False) for method in METHODS),
        *((resnet, method, scaler) for method in ("clp", "erm") for scaler in (False, True)),
    ],
)
def test_a_skipped_step_leaves_no_trace_and_is_counted(make_trainer, model, method, scaler):
    trainer, states = run(
        make_trainer, model, SPOILED["nan"], scaler, on_nonfinite="skip", max_steps=5, **METHODS[method]
    )
    trainer.train()
    before, after = dict(tensors(states[BAD_STEP])), dict(tensors(states[BAD_STEP + 1]))
    assert before.keys() == after.keys()
    for name, tensor in after.items():
        assert torch.equal(tensor, before[name]), name
        assert tensor.dtype == torch.bool or torch.isfinite(tensor).all(), name
    later = dict(tensors(states[BAD_STEP + 2]))
    moved = [name for name, tensor in later.items() if not (name in after and torch.equal(tensor, after[name]))]
    assert any(name.startswith("/model") for name in moved)
    assert any(name.startswith("/learner's network") for name in moved) == (method in ("clp", "weight", "accumulated"))
    assert [entry["steps_skipped"] for entry in trainer.state.log_history if "steps_skipped" in entry] == [1]


@pytest.mark.parametrize(
    ("model", "method", "spoil"),
    [
        *((resnet, method, "huge") for method in ("clp", "before_perturbation_start", "erm", "group_dro")),
        (vit, "clp", "nan"),
        (vit, "before_perturbation_start", "nan"),
        (resnet, "clp", "inf"),
        (vit, "erm", "inf"),
    ],
)
def test_bad_pixels_stop_training_or_move_nothing_to_what_is_not_finite(make_trainer, tmp_path, model, method, spoil):
    trainer, _ = run(make_trainer, model, SPOILED[spoil], save_strategy="steps", save_steps=1, **METHODS[method])
    message = "step 2, in 1 of its 8 images" if spoil != "huge" else "step 2: the loss is .* normalised pixels reach 3e"
    with pytest.raises(NonFiniteError, match=message) as caught:
        trainer.train()
    assert f"last good checkpoint is {tmp_path / 'run' / 'checkpoint-2'}" in str(caught.value)
    for name, tensor in tensors(running_state(trainer)):
        assert tensor.dtype == torch.bool or torch.isfinite(tensor).all(), name


def test_a_learning_rate_that_is_too_high_is_named(make_trainer):
    trainer = make_trainer(meta_every=0, learning_rate=1e30, optim="sgd", max_grad_norm=0.0, max_steps=10)
    with pytest.raises(
        NonFiniteError, match=r"learning rate that is too high \(1e\+30\).*No checkpoint has been saved"
    ):
        trainer.train()


def test_weights_that_are_not_finite_are_not_saved(make_trainer, tmp_path):
    trainer = make_trainer(meta_every=0, save_strategy="steps", save_steps=2)
    trainer.add_callback(Spoil(trainer, at=2))
    with pytest.raises(NonFiniteError, match="After step 2 weights of the model are not finite"):
        trainer.train()
    assert not list((tmp_path / "run").glob("*checkpoint*"))


class Spoil(TrainerCallback):
    def __init__(self, trainer, at):
        self.trainer, self.at = trainer, at

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.at:
            next(self.trainer.model.parameters()).data.fill_(torch.inf)


def test_a_run_does_not_end_with_weights_that_are_not_finite(make_trainer):
    trainer = make_trainer(meta_every=0)
    trainer.add_callback(Spoil(trainer, at=4))
    with pytest.raises(NonFiniteError, match="After step 4 weights"):
        trainer.train()


@pytest.mark.parametrize("scaler", [False, True])
def test_steps_that_stay_bad_are_not_skipped_for_ever(make_trainer, scaler):
    steps = range(BAD_STEP, 100)
    trainer, _ = run(make_trainer, vit, SPOILED["nan"], scaler, steps, on_nonfinite="skip", meta_every=0, max_steps=60)
    with pytest.raises(NonFiniteError, match=f"for {MOST_IN_A_ROW} steps in a row"):
        trainer.train()


def test_bad_pixels_are_no_overflow(make_trainer):
    """A loss scaler would lower its scale; no scale helps against them."""
    trainer, _ = run(make_trainer, vit, SPOILED["nan"], scaler=True)
    with pytest.raises(NonFiniteError, match="Non-finite pixels in a training batch of step 2"):
        trainer.train()


def test_meta_images_that_stay_bad_stop_training(make_trainer):
    trainer = make_trainer(max_steps=MOST_IN_A_ROW + 5)
    loss = trainer.learner._meta_loss
    trainer.learner._meta_loss = lambda *args: loss(*args) * torch.nan
    with pytest.raises(NonFiniteError, match=f"not finite for {MOST_IN_A_ROW} updates in a row, the last at step 19"):
        trainer.train()


class Stream(IterableDataset):
    def __init__(self, items):
        self.items = items

    def __iter__(self):
        return iter(self.items)


def test_labels_of_a_stream_are_checked_with_every_method(make_trainer):
    items = [dict(Squares(60)[index]) for index in range(60)]
    items[30]["labels"] = 3
    trainer = make_trainer(train_dataset=Stream(items), meta_every=0, max_steps=6)
    with pytest.raises(ValueError, match=r"batch of step 3 has labels 0 … 3; the classes of the model are 0 … 2"):
        trainer.train()


# ---- one scaling for all ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {"meta_every": 0},
        {"meta_every": 0, "label_smoothing_factor": 0.1},
        {"meta_every": 0, "training_loss": "focal"},
        {"perturbation_start": 0.9},
        {"perturbation_learning_rate": 1e-30},
    ],
    ids=["plain", "smoothed", "focal", "before_perturbation_start", "clp"],
)
@pytest.mark.parametrize("model", [vit, resnet])
@pytest.mark.parametrize("parts", [(4, 4), (6, 3)], ids=["even", "6 + 6 + 4"])
def test_an_accumulated_step_is_the_whole_one(make_trainer, model, settings, parts):
    """Of networks that take `num_items_in_batch` and use it (ViT), and that do not (ResNet)."""
    length = 16 if settings.get("meta_every") == 0 else 16 + 12  # of which the meta set takes twelve

    def step(batch_size, parts):
        network = model()
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 0.0
                module.forward = lambda x, m=module: torch.nn.functional.batch_norm(
                    x, m.running_mean, m.running_var, m.weight, m.bias
                )
        before = torch.nn.utils.parameters_to_vector(network.parameters()).detach().clone()
        trainer = make_trainer(
            network, Squares(length), per_device_train_batch_size=batch_size, gradient_accumulation_steps=parts,
            max_steps=1, optim="sgd", lr_scheduler_type="constant", max_grad_norm=0.0, meta_batch_size=6, **settings,
        )  # fmt: skip
        trainer.train()
        return torch.nn.utils.parameters_to_vector(trainer.model.parameters()).detach() - before

    torch.testing.assert_close(step(*parts), step(16, 1), rtol=1e-3, atol=1e-6)


# ---- workers that live on --------------------------------------------------------------------------------------------


class Random(Squares):
    def __getitem__(self, index):
        item = super().__getitem__(index)
        return item | {"pixel_values": item["pixel_values"] + torch.randn(3, SIZE, SIZE)}


@pytest.mark.parametrize("method", [{}, {"meta_every": 0}], ids=["clp", "erm"])
def test_persistent_workers_draw_what_a_resumed_run_draws(make_trainer, tmp_path, method):
    settings = {
        "dataloader_num_workers": 1, "dataloader_persistent_workers": True, "max_steps": 5, "save_strategy": "steps",
        "save_steps": 2, "per_device_train_batch_size": 16, "meta_samples": 2, **method,
    }  # fmt: skip
    whole = make_trainer(train_dataset=Random(60), **settings)
    whole.train()
    assert whole.state.epoch > 1
    resumed = make_trainer(train_dataset=Random(60), **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))
    without = make_trainer(
        train_dataset=Random(60), **settings | {"dataloader_num_workers": 0, "dataloader_persistent_workers": False}
    )
    without.train()
    vectors = [torch.nn.utils.parameters_to_vector(trainer.model.parameters()) for trainer in (whole, resumed, without)]
    assert torch.equal(vectors[0], vectors[1])
    assert torch.equal(vectors[0], vectors[2]) or method  # the plain Trainer's draws are not ours to order
