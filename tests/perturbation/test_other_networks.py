"""L2RW, MetaSAug and MFRW-MES: their formulas, their hypergradients against double backward, and what a run keeps."""

import copy
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from conftest import resnet, vit
from torch import nn
from transformers import AutoModelForImageClassification

from clp_hf.bilevel import Classifier, Recording, derivative_in_output, hypergradient
from clp_hf.bilevel.scope import FullScope, HeadScope
from clp_hf.experiment import METHODS
from clp_hf.losses import Outputs, effective_number_weights
from clp_hf.losses.isda import ISDA
from clp_hf.modeling.head import forward_with_features
from clp_hf.perturbation import AdvisorNetwork, LearnedWeights, SemanticDirections
from clp_hf.perturbation.seen import joined, parted, seen_by

NAMES = ("l2rw", "meta_saug", "mfrw_mes")
COUNTS = torch.tensor([30.0, 6.0, 2.0])
RATE = 0.3


def parameters(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


class Tiny(nn.Module):
    """A classifier of 3 classes and 5 features, as transformers' are called."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.Tanh())
        self.head = nn.Linear(5, 3)

    def forward(self, pixel_values):
        return Outputs(self.head(self.body(pixel_values)))


class Problem:
    """A network on a batch of the classifier above, in float64."""

    def __init__(self, network, scope=FullScope, seed=0):
        torch.manual_seed(seed)
        self.model, self.network, self.scope = Tiny().double(), network.double(), scope
        self.images, self.meta_images = torch.randn(2, 8, 3, 2, 2, dtype=torch.float64)
        self.labels = torch.tensor([0, 1, 2, 0, 0, 1, 0, 2])
        self.meta_labels = torch.arange(8) % 3
        self.classifier = Classifier(self.model, self.model.head, forward_with_features)
        network.progress = 0.9
        for weight in network.parameters():
            nn.init.normal_(weight, std=0.3)
        self.g = self.inputs()
        network.begin_batch(self.g, self.labels)

    @torch.no_grad()
    def inputs(self):
        logits, features = self.classifier(self.images)
        loss = F.cross_entropy(logits, self.labels, reduction="none")[:, None]
        return torch.cat([loss, features], dim=1) if self.network.takes_features else loss

    def seen(self, logits, features):
        return seen_by(self.network, self.model.head, logits, features)

    def loss(self, seen, output):
        return self.network.training_loss(seen, output, self.labels)

    def meta_loss(self):
        logits, _ = self.scope.meta_pass(self.classifier, self.meta_images)
        return F.cross_entropy(logits, self.meta_labels)

    def hypergradient(self, engine):
        with Recording("cpu") as recording:
            logits, features = self.classifier(self.images)
        hyperparameters = self.network.hyperparameters(self.labels)
        training_pass = self.scope.training_pass(
            self.classifier, self.images, logits, features, recording, None, lambda *both: joined(self.seen(*both))
        )
        seen = self.seen(logits, features)
        delta = partial(self.network, self.g, self.labels)
        result = hypergradient(
            self.scope.module(self.classifier),
            training_pass,
            lambda tensor: self.loss(parted(tensor, seen), delta()),
            self.meta_loss,
            hyperparameters,
            RATE,
            engine=engine,
        )
        inner_loss = lambda tensor, output: self.loss(parted(tensor, seen), output)  # noqa: E731
        return result, partial(derivative_in_output, inner_loss, training_pass.logits, delta(), result.logit_tangent)

    def by_hand(self):
        """The textbook: through a step that keeps its graph."""
        hyperparameters = self.network.hyperparameters(self.labels)
        looking = dict(self.scope.module(self.classifier).named_parameters())
        logits, features = self.classifier(self.images)
        if self.scope is HeadScope:
            features = features.detach()
            logits = self.model.head(features)
        loss = self.loss(self.seen(logits, features), self.network(self.g, self.labels))
        gradients = torch.autograd.grad(loss, list(looking.values()), create_graph=True)
        moved = {key: weight - RATE * part for (key, weight), part in zip(looking.items(), gradients, strict=True)}
        if self.scope is HeadScope:
            meta_features = self.classifier.features(self.meta_images)
            meta = meta_features @ moved["weight"].T + moved["bias"]
        else:
            meta = torch.func.functional_call(self.model, moved, (self.meta_images,)).logits
        return torch.autograd.grad(F.cross_entropy(meta, self.meta_labels), hyperparameters, materialize_grads=True)


def build(name):
    return {
        "l2rw": LearnedWeights,
        "meta_saug": partial(SemanticDirections, COUNTS, 5, strength=1.0),
        "mfrw_mes": partial(AdvisorNetwork, 5, 3, 4),
    }[name]()


@pytest.mark.parametrize("scope", [FullScope, HeadScope])
@pytest.mark.parametrize("engine", ["forward", "double_backward"])
@pytest.mark.parametrize("name", NAMES)
def test_the_hypergradient_is_that_of_the_textbook(name, engine, scope):
    """Also where Ω reaches the loss by features and head, and not through the logits alone."""
    problem = Problem(build(name), scope)
    expected = problem.by_hand()
    found, _ = problem.hypergradient(engine)
    assert any(part.abs().max() > 1e-6 for part in expected)
    for part, wanted in zip(found.total, expected, strict=True):
        torch.testing.assert_close(part, wanted, rtol=1e-9, atol=1e-13)


# ---- L2RW ------------------------------------------------------------------------------------------------------------


def test_weights_are_the_gradients_that_help_and_sum_to_one():
    problem = Problem(LearnedWeights())
    result, derivative = problem.hypergradient("forward")
    problem.network.adapt(result.total[0], derivative)
    weights = problem.network(problem.g, problem.labels)
    (expected,) = problem.by_hand()  # of each sample, in ε = 0
    helpful = (-expected).clamp(min=0)
    torch.testing.assert_close(weights / 8, (helpful / helpful.sum()).to(weights.dtype), rtol=1e-6, atol=1e-9)
    assert 0 < (weights == 0).sum() < 8
    gradients = []
    for image, label in zip(problem.images, problem.labels, strict=True):
        loss = F.cross_entropy(problem.model(image[None]).logits, label[None])
        gradients.append(torch.cat([part.flatten() for part in torch.autograd.grad(loss, problem.model.parameters())]))
    meta = torch.cat([p.flatten() for p in torch.autograd.grad(problem.meta_loss(), problem.model.parameters())])
    alike = torch.stack(gradients) @ meta  # their gradient and that of the meta set
    assert ((alike > 0) == (weights > 0)).all()


def test_of_a_batch_without_hypergradient_all_samples_count_alike():
    network, labels = LearnedWeights(), torch.tensor([0, 1, 1])
    g = torch.zeros(3, 1)
    assert network(g, labels).tolist() == [1, 1, 1]
    network.hyperparameters(labels)
    assert network(g, labels).tolist() == [0, 0, 0]
    network.adapt(None, lambda: None)  # it was not finite
    assert network(g, labels).tolist() == [1, 1, 1]
    network.hyperparameters(labels)
    network.adapt(torch.zeros(3), lambda: torch.tensor([1.0, -3.0, -1.0]))
    assert network(g, labels).tolist() == pytest.approx([0, 9 / 4, 3 / 4])
    network.adapt(torch.zeros(3), lambda: torch.ones(3))  # none helps
    assert network(g, labels).tolist() == [0, 0, 0]
    network.begin_batch(g, labels)
    assert network(g, labels).tolist() == [1, 1, 1]


def test_the_trainer_weighs_a_batch_by_what_helps(make_trainer):
    """In float64, by one gradient a sample, at the weights that the classifier has in its step."""
    settings = METHODS["l2rw"] | {"max_steps": 1, "meta_in_training_mode": False, "logging_steps": 1}
    trainer = make_trainer(vit(), max_grad_norm=0.0, optim="sgd", **settings)
    model, learner = copy.deepcopy(trainer.model), trainer.learner
    batches, metas, outputs = [], [], []
    prepare, draw, level = trainer._prepare_inputs, learner.meta_batches.draw, learner.network.level
    trainer._prepare_inputs = lambda inputs: batches.append(prepare(inputs)) or batches[-1]
    learner.meta_batches.draw = lambda *args: metas.append(draw(*args)) or metas[-1]
    learner.network.level = lambda output, labels: outputs.append(output) or level(output, labels)
    trainer.train()

    def gradient(pixel_values, labels):
        loss = F.cross_entropy(model(pixel_values=pixel_values).logits, labels)
        return torch.cat([part.flatten() for part in torch.autograd.grad(loss, model.parameters())])

    own = [
        gradient(image[None], label[None])
        for image, label in zip(batches[0]["pixel_values"], batches[0]["labels"], strict=True)
    ]
    helpful = (torch.stack(own) @ gradient(metas[0]["pixel_values"], metas[0]["labels"])).clamp(min=0)
    torch.testing.assert_close(outputs[0], helpful / helpful.mean(), rtol=1e-3, atol=1e-5)
    assert trainer.state.log_history[0]["weight_size"] == pytest.approx(1, abs=1e-5)


def test_each_micro_batch_has_its_own_weights(make_trainer):
    trainer = make_trainer(max_steps=2, gradient_accumulation_steps=2, **METHODS["l2rw"])
    sizes = []
    adapt = trainer.learner.network.adapt
    trainer.learner.network.adapt = lambda *args: sizes.append(len(trainer.learner.network.omega)) or adapt(*args)
    trainer.train()
    assert sizes == [8, 8, 8, 8]


# ---- MetaSAug --------------------------------------------------------------------------------------------------------


def test_the_loss_is_that_of_isda_with_class_weights():
    torch.manual_seed(0)
    network, isda = SemanticDirections(COUNTS, 5, strength=0.8), ISDA(COUNTS, 5, strength=0.8)
    features, weight, labels = torch.randn(9, 5), torch.randn(3, 5), torch.arange(9) % 3
    logits = features @ weight.T
    network.progress = isda.progress = 0.5
    network.begin_batch(torch.cat([torch.zeros(9, 1), features], dim=1), labels)
    expected = isda(logits, labels, None, features, weight)
    seen = Outputs(logits, features, weight)
    weights = effective_number_weights(COUNTS, 0.9999)
    losses = [network.training_loss(seen, network(None, labels), labels)]
    network.weights.fill_(1.0)
    losses.append(network.training_loss(seen, network(None, labels), labels))
    torch.testing.assert_close(losses[1], expected)
    assert losses[0] != losses[1]
    assert weights[2] > weights[0]


def test_a_step_is_taken_from_the_estimate_in_every_batch():
    problem = Problem(build("meta_saug"))
    estimate = problem.network.moments.covariances.clone()
    for _ in range(2):
        result, derivative = problem.hypergradient("forward")
        problem.network.adapt(result.total[0], derivative)
        torch.testing.assert_close(problem.network(problem.g, problem.labels), estimate - 0.1 * result.total[0])
    assert torch.equal(problem.network.moments.covariances, estimate)


def test_features_are_augmented_late_in_training(make_trainer):
    trainer = make_trainer(max_steps=5, **METHODS["meta_saug"])
    trainer.train()
    assert trainer.learner.network.moments.counts.sum() == 8  # of the last step
    assert [("covariance_size" in entry) for entry in trainer.state.log_history if "loss" in entry] == [
        False, False, False, False, True,
    ]  # fmt: skip


# ---- MFRW-MES --------------------------------------------------------------------------------------------------------


def test_training_starts_as_cross_entropy_and_advice_changes_features_and_classes():
    torch.manual_seed(0)
    network = AdvisorNetwork(5, 3, 4)
    features, weight, bias, labels = torch.randn(6, 5), torch.randn(3, 5), torch.randn(3), torch.arange(6) % 3
    logits = features @ weight.T + bias
    seen, g = Outputs(logits, features, weight), torch.cat([torch.rand(6, 1), features], dim=1)
    output = network(g, labels)
    assert (output[:, :5] == 1).all()
    torch.testing.assert_close(network.training_loss(seen, output, labels), F.cross_entropy(logits, labels))
    nn.init.normal_(network.output.weight)
    output = network(g, labels)
    a, w = output[:, :5], output[:, 5:].exp()
    assert ((a > 0) & (a < 2)).all()
    assert ((w > 0) & (w < 2)).all()
    assert (w.gather(1, labels[:, None]) == 1).all()
    exponentials = w * ((a * features) @ weight.T + bias).exp()
    p = exponentials.gather(1, labels[:, None])[:, 0] / exponentials.sum(1)
    torch.testing.assert_close(network.training_loss(seen, output, labels), -p.log().mean())


# ---- runs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_resumed_equals_uninterrupted_and_the_model_is_an_ordinary_one(make_trainer, tmp_path, name):
    settings = METHODS[name] | {"save_strategy": "steps", "save_steps": 2, "max_steps": 3}
    settings |= {"perturbation_start": 0.3} if name == "meta_saug" else {}
    whole = make_trainer(vit(hidden_dropout_prob=0.1), **settings)
    whole.train()
    resumed = make_trainer(vit(hidden_dropout_prob=0.1), **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))
    assert torch.equal(parameters(whole.model), parameters(resumed.model))
    states = (trainer.learner.network.state_dict() for trainer in (whole, resumed))
    assert all(torch.equal(one, other) for one, other in zip(*map(dict.values, states), strict=True))
    whole.save_model()
    whole.create_model_card()
    saved = AutoModelForImageClassification.from_pretrained(whole.args.output_dir)
    assert torch.equal(parameters(saved), parameters(whole.model))
    folders = {path.name for path in (tmp_path / "run").iterdir() if path.is_dir()} - {"checkpoint-2", "checkpoint-3"}
    assert folders == ({"advisor_network"} if name == "mfrw_mes" else set())
    card = (tmp_path / "run" / "README.md").read_text()
    assert {"l2rw": "reweight", "meta_saug": "MetaSAug", "mfrw_mes": "advisor_network"}[name] in card


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "settings",
    [
        {"lookahead_scope": "head", "bf16": True},
        {"hypergradient": "finite_difference", "recompute_training_forward": True, "meta_every": 2},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_options_of_the_look_ahead(make_trainer, name, settings):
    settings = METHODS[name] | {"max_steps": 2, "perturbation_start": 0.0} | settings
    trainer = make_trainer(resnet(), **settings)
    before = copy.deepcopy(trainer.model)
    trainer.train()
    assert torch.isfinite(parameters(trainer.model)).all()
    assert not torch.equal(parameters(before), parameters(trainer.model))


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("l2rw", {"lookahead": "converged"}, "'l2rw' does not go with lookahead='converged'; set lookahead='match'"),
        ("mfrw_mes", {"lookahead": "converged"}, "does not go with lookahead='converged'"),
        ("meta_saug", {"reuse_gradient": True}, "does not go with reuse_gradient=True; set reuse_gradient=False"),
        ("l2rw", {"hypergradient": "double_backward"}, "does not go with hypergradient='double_backward'"),
        ("mfrw_mes", {"class_prior": True}, "perturbs no logits, and goes without class_prior"),
    ],
)
def test_what_does_not_go_together_is_refused(make_trainer, name, settings, message):
    with pytest.raises(ValueError, match=message):
        make_trainer(**METHODS[name] | settings)
