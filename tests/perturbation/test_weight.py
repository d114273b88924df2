"""Meta-Weight-Net on CLP's hypergradient: against double backward, and in the trainer."""

import copy
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from conftest import Squares
from torch import nn

from clp_hf.baselines import WeightNetwork
from clp_hf.bilevel import TrainingPass, derivative_in_output, hypergradient
from clp_hf.experiment import METHODS


def parameters(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_weighted_loss_by_hand():
    logits, labels = torch.tensor([[0.0, 0.0], [1.0, 3.0]]), torch.tensor([0, 0])
    weights = torch.tensor([0.75, 0.25])
    losses = F.cross_entropy(logits, labels, reduction="none")
    loss = WeightNetwork().training_loss(logits, weights, labels)
    torch.testing.assert_close(loss, 0.75 * losses[0] + 0.25 * losses[1])
    torch.testing.assert_close(WeightNetwork().training_loss(logits, weights / 10, labels), loss)  # normalised
    torch.testing.assert_close(
        WeightNetwork().training_loss(logits.bfloat16(), torch.ones(2), labels), losses.mean(), rtol=1e-2, atol=0
    )


def test_weights_above_the_mean_raise_a_loss():
    raised = WeightNetwork().raises_loss(torch.zeros(4, 3), torch.tensor([0.1, 0.2, 0.3, 0.8]), torch.zeros(4).long())
    assert raised.tolist() == [False, False, False, True]


@pytest.mark.parametrize("engine", ["forward", "double_backward"])
def test_hypergradient_is_double_backward_written_out(engine):
    """Shu et al., Eq. 3 to 5, in float64: V sees the loss as a number, W reaches it through the weighted mean only."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    network = WeightNetwork(hidden_size=16).double()
    images, meta_images = torch.randn(2, 6, 5, dtype=torch.float64)
    labels, meta_labels = torch.tensor([0, 1, 2, 0, 1, 2]), torch.tensor([0, 0, 1, 1, 2, 2])

    weights = dict(model.named_parameters())
    losses = F.cross_entropy(model(images), labels, reduction="none")
    v = network(losses.detach()[:, None], labels)
    gradients = torch.autograd.grad((v * losses).sum() / v.sum(), list(weights.values()), create_graph=True)
    ahead = {name: weight - 0.5 * g for (name, weight), g in zip(weights.items(), gradients, strict=True)}
    meta_loss = F.cross_entropy(torch.func.functional_call(model, ahead, (meta_images,)), meta_labels)
    expected = torch.autograd.grad(meta_loss, list(network.parameters()))
    assert max(gradient.abs().max() for gradient in expected) > 1e-5

    training_pass = TrainingPass.run(lambda: model(images))
    characteristics = losses.detach()[:, None]
    result = hypergradient(
        model,
        training_pass,
        lambda logits: network.training_loss(logits, network(characteristics, labels), labels),
        lambda: F.cross_entropy(model(meta_images), meta_labels),
        list(network.parameters()),
        0.5,
        engine=engine,
    )
    torch.testing.assert_close(result.total, list(expected), rtol=1e-10, atol=1e-14)


def test_it_needs_no_masks_and_both_networks_move(make_trainer):
    data = Squares(60, columns=("group",))
    trainer = make_trainer(train_dataset=data, max_steps=3, **METHODS["meta_weight_net"])
    assert isinstance(trainer.perturbation_network, WeightNetwork)
    before = copy.deepcopy(trainer.model), copy.deepcopy(trainer.perturbation_network)
    trainer.train()
    assert not torch.equal(parameters(before[0]), parameters(trainer.model))
    for old, new in zip(before[1].parameters(), trainer.perturbation_network.parameters(), strict=True):
        assert not torch.equal(old, new)
    entry = trainer.state.log_history[0]
    assert 0 < entry["weight_size"] < 1
    assert any(name.startswith("weight_group_") for name in entry)
    assert any(name.startswith("signal_group_") for name in entry)


def test_the_signal_is_what_more_weight_would_do(make_trainer):
    """−n times the derivative of the meta loss in its weight; the weights are relative, so its weighted sum is 0."""
    trainer = make_trainer(**METHODS["meta_weight_net"])
    generator = torch.Generator().manual_seed(0)
    logits, tangent = torch.randn(2, 4, 3, generator=generator)
    weights, labels = torch.tensor([0.2, 0.4, 0.6, 0.8]), torch.tensor([0, 1, 2, 0])
    inner_loss = partial(trainer.learner._inner_loss, labels=labels)
    derivative = derivative_in_output(inner_loss, logits, weights, tangent)
    slopes = ((logits.softmax(-1) - F.one_hot(labels)) * tangent).sum(-1)
    expected = 4 * (slopes - (weights * slopes).sum() / weights.sum()) / weights.sum()
    torch.testing.assert_close(trainer.perturbation_network.signal(derivative, labels), expected)
    assert (weights * expected).sum().abs() < 1e-5


def test_the_network_is_saved_resumed_and_selected(make_trainer, tmp_path):
    settings = {
        **METHODS["meta_weight_net"], "save_strategy": "steps", "save_steps": 2, "eval_strategy": "steps",
        "eval_steps": 2, "max_steps": 3, "load_best_model_at_end": True,
    }  # fmt: skip
    whole = make_trainer(**settings)
    whole.train()
    checkpoint = tmp_path / "run" / "checkpoint-2"
    resumed = make_trainer(**settings)
    resumed.train(resume_from_checkpoint=str(checkpoint))
    assert torch.equal(parameters(whole.model), parameters(resumed.model))
    assert torch.equal(parameters(whole.perturbation_network), parameters(resumed.perturbation_network))
    best = WeightNetwork.from_pretrained(whole.state.best_model_checkpoint)
    assert torch.equal(parameters(best), parameters(whole.perturbation_network))
    assert (checkpoint / "weight_network" / "config.json").is_file()
    assert not (checkpoint / "perturbation_network").exists()
