"""`lookahead="converged"`: Ω is judged at the head that training would end with on remembered features."""

import copy
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from conftest import Squares, resnet, vit
from torch import nn

from clp_hf import CLPTrainingArguments
from clp_hf.algorithm import MetaLearner
from clp_hf.bilevel import Classifier, ConvergedHead, SoftmaxRegression, implicit_hypergradient
from clp_hf.bilevel.scope import FullScope
from clp_hf.causal import meta_loss
from clp_hf.losses.objective import Run
from clp_hf.modeling.head import forward_with_features
from clp_hf.perturbation import ClassStatistics, Evidence, Evidences, MetaNetwork, PerturbationNetwork, WeightNetwork


class Linear(nn.Module):
    """A classifier whose features are its inputs."""

    def __init__(self, features, classes):
        super().__init__()
        self.head = nn.Linear(features, classes)

    def forward(self, pixel_values):
        return SimpleNamespace(logits=self.head(pixel_values))


class Given(Evidence):
    NAME = "background"

    def __call__(self, batch, features, classifier):
        return batch["u_z"]


class Gain(MetaNetwork):
    """δ = a u_z, with one number a to learn, which starts at 1."""

    NAME, characteristics, CARD = "perturbation", ("loss",), "clp"
    training_loss, inner_problem = PerturbationNetwork.training_loss, PerturbationNetwork.inner_problem
    level, raises_loss = PerturbationNetwork.level, PerturbationNetwork.raises_loss
    perturbs_own = False

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))

    def forward(self, characteristics, labels, evidence=None):
        return self.gain * evidence.sum(1)


def spurious_batch(n, share, seed, classes=2):
    """Features that tell the class and, more easily, an attribute that is the class in this share of the images.

    u_z is half of what the attribute says of the class in 95 %, so that it is right twice as strong.
    """
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    other = (labels + 1 + torch.randint(0, classes - 1, (n,), generator=generator)) % classes
    attribute = torch.where(torch.arange(n) // classes % 20 < 20 * share, labels, other)
    x = torch.randn(n, 3 * classes, generator=generator, dtype=torch.float64)
    x[:, :classes] += 1.5 * F.one_hot(labels, classes)
    x[:, classes : 2 * classes] = 3 * F.one_hot(attribute, classes) + 0.3 * x[:, classes : 2 * classes]
    log_odds = torch.tensor(0.95 * (classes - 1) / 0.05).log().item()
    return {"pixel_values": x, "labels": labels, "u_z": log_odds / 2 * F.one_hot(attribute, classes).double()}


def learner(folder, network, meta, size, classes=2, **settings):
    """A `MetaLearner` in float64 of a linear classifier, and where its run is."""
    torch.manual_seed(0)
    model = Linear(3 * classes, classes).double()
    args = CLPTrainingArguments(str(folder), use_cpu=True, report_to=[], **settings)
    meta_batches = SimpleNamespace(draw=lambda logits_fn, donors: meta)
    shares = torch.full((classes,), 1 / classes, dtype=torch.float64)
    found = MetaLearner(
        Classifier(model, model.head, forward_with_features), network.double(), ClassStatistics(shares).double(),
        Evidences([Given()]), meta_batches, FullScope, args, {},
        ConvergedHead(size, classes, args.lookahead_ridge) if args.lookahead == "converged" else None,
    )  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), lr=0.003)
    found.begin(optimizer)
    return found, Run(model, optimizer, 0, 1000)


def step(found, run, batch):
    _, failed = found.training_step(run, batch)
    assert not failed
    run.optimizer.step()
    run.optimizer.zero_grad()
    run.step += 1


def meta_batch(n, classes=2):
    return spurious_batch(n, 0.5, 100, classes) | {"counterfactual": torch.arange(n) % 3 == 0}


def logged(trainer, name):
    return [entry[name] for entry in trainer.state.log_history if name in entry]


# ---- what is learned -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {"characteristics": ["loss", "margin", "background_margin"], "bound": 5.0, "condition_on_label": True},
        {"characteristics": ["loss", "background_margin"], "perturbed_logits": "own"},
        None,
    ],
    ids=["all", "own", "weight"],
)
def test_an_update_is_the_implicit_hypergradient_over_the_training_set(tmp_path, settings):
    """Features are inputs, and what is remembered is all there is: by hand, with the ridge of unscaled features."""
    classes = 3
    torch.manual_seed(1)
    network = WeightNetwork() if settings is None else PerturbationNetwork(classes, **settings)
    for parameter in network.output.parameters():
        nn.init.normal_(parameter, std=0.3)
    data, meta = spurious_batch(120, 0.95, 0, classes), meta_batch(30, classes)
    found, run = learner(
        tmp_path, network, meta, 120, classes, lookahead="converged", perturbation_optim="sgd",
        perturbation_learning_rate=0.1, lookahead_ridge=1e-3, meta_every=3,
    )  # fmt: skip
    seen = []
    characteristics = found._characteristics
    found._characteristics = lambda *args, **kwargs: seen.append(characteristics(*args, **kwargs)) or seen[-1]
    run.step = 1  # the third batch is the first with an update
    for rows in torch.arange(120).split(40):
        before = copy.deepcopy(network)
        step(found, run, {name: column[rows] for name, column in data.items()})
    # the statistics of the inputs are those of this step, the weights those before it
    statistics = {name: buffer for name, buffer in network.named_buffers() if name in before.state_dict()}
    before.load_state_dict(before.state_dict() | statistics)

    x = data["pixel_values"]
    scale = x.square().sum(1).mean()

    def inner():
        output = before(torch.cat(seen), data["labels"], data["u_z"][:, None])
        if settings is None:
            weights, offsets = output / output.mean(), torch.zeros(120, classes, dtype=torch.float64)
        else:
            weights, offsets = torch.ones(120, dtype=torch.float64), output
        return offsets[None], weights[None], (1e-3 * scale)[None]

    def outer(weight, bias):
        return meta_loss(meta["pixel_values"] @ weight[0].T + bias[0], meta["labels"], meta["counterfactual"])

    parameters = list(before.parameters())
    expected, _ = implicit_hypergradient(SoftmaxRegression(x, data["labels"], classes), inner, outer, parameters)
    assert float(torch.cat([part.flatten() for part in expected.total]).norm()) > 1e-4
    for old, new, gradient in zip(parameters, network.parameters(), expected.total, strict=True):
        torch.testing.assert_close(new, old - 0.1 * gradient, rtol=1e-7, atol=1e-10)
    assert found.means.take(lambda values: values)["meta_loss"] == pytest.approx(float(expected.outer_loss), rel=1e-9)


def test_it_finds_the_strength_that_one_step_does_not(tmp_path):
    """Evidence is right at twice its strength. Far from convergence, one step ahead even takes it away."""
    gains = {}
    data, meta = spurious_batch(400, 0.95, 0), meta_batch(200) | {"counterfactual": torch.zeros(200, dtype=torch.bool)}
    for lookahead in ("match", "converged"):
        network = Gain()
        found, run = learner(tmp_path, network, meta, 400, lookahead=lookahead, perturbation_learning_rate=0.03)
        generator = torch.Generator().manual_seed(0)
        for _ in range(60):
            rows = torch.randperm(400, generator=generator)[:100]
            step(found, run, {name: column[rows] for name, column in data.items()})
        gains[lookahead] = network.gain.item()
    assert gains["match"] < 0.5
    assert 1.5 < gains["converged"] < 2.5


# ---- waiting, and heads that do not converge -------------------------------------------------------------------------


def test_updates_wait_for_a_quarter_of_the_memory_and_all_classes(tmp_path):
    data, meta = spurious_batch(60, 0.95, 0), meta_batch(20)
    found, run = learner(tmp_path, Gain(), meta, 40, lookahead="converged")
    waited = []
    one_class = data["labels"] == 0
    for rows in (one_class.nonzero()[:12, 0], torch.arange(4), torch.arange(4, 10)):
        gain = found.network.gain.item()
        step(found, run, {name: column[rows] for name, column in data.items()})
        means = found.means.take(lambda values: values)
        waited.append(means["lookahead_waiting"])
        assert (found.network.gain.item() == gain) == bool(waited[-1])
        assert ("meta_loss" in means) == (not waited[-1])
    assert waited == [1.0, 0.0, 0.0]
    found, run = learner(tmp_path, Gain(), meta, 41, lookahead="converged")
    step(found, run, {name: column[:10] for name, column in data.items()})
    assert found.means.take(lambda values: values)["lookahead_waiting"] == 1.0


def test_a_head_that_does_not_converge_is_said_and_counted(make_trainer, monkeypatch):
    monkeypatch.setattr("clp_hf.bilevel.implicit.NEWTON_STEPS", 1)
    trainer = make_trainer(lookahead="converged", max_steps=6)
    with pytest.warns(UserWarning, match="have not converged after 1 Newton steps"):
        trainer.train()
    assert 1.0 in logged(trainer, "lookahead_not_converged")
    assert logged(trainer, "meta_updates_skipped") == [0.0] * 5  # of six, the first waited


def test_a_meta_loss_that_is_not_finite_skips_the_update(make_trainer, monkeypatch):
    monkeypatch.setattr("clp_hf.perturbation.convergence.meta_loss", lambda logits, *_: logits.sum() * torch.nan)
    trainer = make_trainer(lookahead="converged", max_steps=3)
    before = copy.deepcopy(trainer.perturbation_network.output.weight)
    trainer.train()
    assert logged(trainer, "meta_updates_skipped") == [1.0] * 2
    assert torch.equal(trainer.perturbation_network.output.weight, before)
    assert logged(trainer, "lookahead_waiting") == [1.0, 0.0, 0.0]


class Bad(Squares):
    """An image that is not finite, beyond those that are looked at before training."""

    def __getitem__(self, index):
        item = super().__getitem__(index)
        return item | {"pixel_values": item["pixel_values"] * (torch.nan if index == 39 else 1)}


def test_a_step_that_is_left_out_is_not_remembered(make_trainer):
    trainer = make_trainer(train_dataset=Bad(60), lookahead="converged", on_nonfinite="skip", max_steps=12)
    trainer.train()
    assert sum(logged(trainer, "steps_skipped")) >= 1
    assert torch.isfinite(trainer.perturbation_network.output.weight).all()
    assert all(torch.isfinite(batch["features"]).all() for batch in trainer.learner.converged.memory.batches)


# ---- as part of a run ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [vit, resnet])
def test_a_resumed_run_is_the_uninterrupted_one(make_trainer, tmp_path, model):
    settings = {
        "lookahead": "converged", "max_steps": 8, "save_strategy": "steps", "save_steps": 4, "meta_every": 2,
        "evidence": ["background", "attribute", "bias"], "counterfactual_infills": ["random"],
        "factual_infills": ["shuffle"],
    }  # fmt: skip
    whole = make_trainer(model(), **settings)
    whole.train()
    resumed = make_trainer(model(), **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-4"))
    assert whole.learner.converged.memory.read()["evidence"].shape == (48, 3, 3)
    for ours, theirs in (
        (resumed.model, whole.model),
        (resumed.perturbation_network, whole.perturbation_network),
    ):
        for name, tensor in ours.state_dict().items():
            assert torch.equal(tensor, theirs.state_dict()[name]), name
    ours, theirs = (trainer.learner.converged.state_dict() for trainer in (resumed, whole))
    for part in ("memory", "solution"):
        assert all(torch.equal(tensor, theirs[part][name]) for name, tensor in ours[part].items())


def test_a_checkpoint_of_another_lookahead_is_refused(make_trainer, tmp_path):
    make_trainer(save_strategy="steps", save_steps=2, max_steps=2).train()
    with pytest.raises(ValueError, match="lookahead was 'match', is 'converged'"):
        make_trainer(lookahead="converged").train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))


@pytest.mark.parametrize("sampling", ["random", "class"])
def test_the_memory_is_no_larger_than_an_epoch(make_trainer, sampling):
    trainer = make_trainer(lookahead="converged", max_steps=8, train_sampling=sampling)
    trainer.train()
    size = 60 - 2 * 6  # without the meta set
    assert trainer.learner.converged.memory.size == size
    memory = trainer.learner.converged.memory.read()
    assert {name: tuple(column.shape) for name, column in memory.items()} == {
        "features": (size, 16), "labels": (size,), "characteristics": (size, 10),
    }  # fmt: skip


# ---- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lookahead_scope": "head"}, "without lookahead_scope='head'. Set lookahead_scope='full', or lookahead="),
        ({"hypergradient": "finite_difference"}, "without hypergradient='finite_difference'"),
        ({"recompute_training_forward": True}, "without recompute_training_forward=True"),
        ({"perturb_meta_logits": True}, "without perturb_meta_logits=True. Set perturb_meta_logits=False"),
        ({"label_smoothing_factor": 0.1}, "without label_smoothing_factor=0.1"),
        ({"lookahead_ridge": 0.0}, "lookahead_ridge is 0.0; expected above 0"),
        ({"lookahead_memory": 0}, "lookahead_memory is 0; expected 1 or more"),
        ({"lookahead_memory": 5}, "Of 5 images a process, 1.7 are of class 0, .* Set lookahead_memory to 6 or more"),
        ({"lookahead_memory": 5, "train_sampling": "class"}, "Set lookahead_memory to 6 or more"),
    ],
)
def test_bad_settings_are_refused(make_trainer, settings, message):
    with pytest.raises(ValueError, match=message):
        make_trainer(**({"lookahead": "converged"} | settings))


def test_what_means_nothing_to_a_plain_run_is_not_asked(make_trainer):
    make_trainer(lookahead="converged", meta_every=0, label_smoothing_factor=0.1)


def test_a_class_of_one_image_is_refused(make_trainer):
    data = Squares(60)
    data.labels = [label if index < 3 else label % 2 for index, label in enumerate(data.labels)]
    with pytest.raises(ValueError, match=r"are of class 2, .* too few of them for any lookahead_memory: add images"):
        make_trainer(train_dataset=data, meta_dataset=Squares(12, start=500), lookahead="converged")


def test_a_frozen_head_is_refused(make_trainer):
    model = vit()
    model.classifier.requires_grad_(False)
    with pytest.raises(ValueError, match="lookahead is 'converged', but the head, classifier, is frozen"):
        make_trainer(model, lookahead="converged")
