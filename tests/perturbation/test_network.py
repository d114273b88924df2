"""The perturbation network: its start, its bound, its statistics, its files."""

import pytest
import torch
import torch.nn.functional as F

from clp_hf import PerturbationNetwork

INPUTS = torch.randn(64, 10, generator=torch.Generator().manual_seed(0)) * 3 + 5
LABELS = torch.arange(64) % 4


def moved(network):
    """A network as training leaves it."""
    with torch.no_grad():
        network.output.weight.normal_(generator=torch.Generator().manual_seed(1))
    network.update_statistics(INPUTS)
    return network


def test_training_starts_as_plain_cross_entropy():
    assert PerturbationNetwork(4)(INPUTS, LABELS).abs().max() == 0


def test_with_class_proportions_training_starts_as_logit_adjustment(tmp_path):
    shares = [0.5, 0.25, 0.2, 0.05]
    network = PerturbationNetwork(4, class_proportions=shares)
    start = network(INPUTS, LABELS)
    torch.testing.assert_close(start, torch.tensor(shares).log().expand(64, 4))
    learned = moved(network)(INPUTS, LABELS)
    network.save_pretrained(tmp_path)
    assert torch.equal(PerturbationNetwork.from_pretrained(tmp_path)(INPUTS, LABELS), learned)
    with pytest.raises(ValueError, match=r"none of \[1\]"):
        PerturbationNetwork(4, class_proportions=[0.5, 0.0, 0.3, 0.2])


def test_every_parameter_gets_a_gradient_after_the_first_step():
    network = moved(PerturbationNetwork(4, condition_on_label=True))
    network(INPUTS, LABELS).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in network.parameters())


def test_bound_is_kept_and_zero_leaves_free():
    free, bounded = moved(PerturbationNetwork(4)), moved(PerturbationNetwork(4, bound=2.0))
    bounded.load_state_dict(free.state_dict())
    assert free(INPUTS, LABELS).abs().max() > 2
    assert bounded(INPUTS, LABELS).abs().max() <= 2
    torch.testing.assert_close(bounded(INPUTS, LABELS), 2 * torch.tanh(free(INPUTS, LABELS) / 2))


def test_label_matters_only_where_conditioned_on_it():
    others = LABELS.flip(0)
    plain, conditioned = moved(PerturbationNetwork(4)), moved(PerturbationNetwork(4, condition_on_label=True))
    assert torch.equal(plain(INPUTS, LABELS), plain(INPUTS, others))
    assert not torch.equal(conditioned(INPUTS, LABELS), conditioned(INPUTS, others))


def test_of_the_own_class_alone_one_value_is_learned(tmp_path):
    network = moved(PerturbationNetwork(4, perturbed_logits="own", bound=2.0))
    perturbation = network(INPUTS, LABELS)
    own = LABELS[:, None] == torch.arange(4)
    assert perturbation[own].abs().max() <= 2
    assert (perturbation[own] != 0).all()
    assert (perturbation[~own] == 0).all()
    torch.testing.assert_close(network(INPUTS, LABELS.flip(0))[own.flip(0)], perturbation[own])
    # the larger it is, the less there is to learn from the sample
    logits = torch.zeros(64, 4)
    removed = perturbation[own] > 0
    assert torch.equal(network.raises_loss(logits, perturbation, LABELS), ~removed)
    network.save_pretrained(tmp_path)
    assert torch.equal(PerturbationNetwork.from_pretrained(tmp_path)(INPUTS, LABELS), perturbation)


def test_perturbing_the_own_logit_weighs_samples_and_not_the_step():
    network = PerturbationNetwork(4, perturbed_logits="own")
    logits = torch.randn(64, 4, generator=torch.Generator().manual_seed(3)).requires_grad_()
    perturbation = torch.linspace(-2, 4, 64)[:, None] * F.one_hot(LABELS, 4)
    (found,) = torch.autograd.grad(network.training_loss(logits, perturbation, LABELS), logits)
    (plain,) = torch.autograd.grad(F.cross_entropy(logits, LABELS, reduction="sum"), logits)
    own = (torch.arange(64), LABELS)
    weight = (1 - (logits + perturbation).softmax(-1)[own]) / (1 - logits.softmax(-1)[own])
    torch.testing.assert_close(found, weight[:, None] * plain / weight.sum())
    silenced = 1e4 * F.one_hot(LABELS, 4).float()
    assert network.training_loss(logits, silenced, LABELS) == 0


def test_unknown_perturbed_logits_are_refused():
    with pytest.raises(ValueError, match="perturbed_logits is 'other'; choose one of all, own"):
        PerturbationNetwork(4, perturbed_logits="other")


def test_running_statistics_reach_those_of_the_whole_stream():
    network = PerturbationNetwork(4)
    for batch in INPUTS.split(16):
        network.update_statistics(batch)
    torch.testing.assert_close(network.mean, INPUTS.mean(0))
    torch.testing.assert_close(network.variance, INPUTS.var(0, correction=0))


def test_latest_samples_are_kept_beside_the_weights(tmp_path):
    network, labels = PerturbationNetwork(4), torch.arange(200) % 4
    batches = torch.randn(3, 200, 10, generator=torch.Generator().manual_seed(2))
    for batch in batches:
        network.remember(batch, labels)
    characteristics, kept = network.recent
    assert torch.equal(characteristics, batches.flatten(0, 1)[-256:])
    assert torch.equal(kept, labels.repeat(3)[-256:])
    assert not any("recent" in name for name in network.state_dict())
    network.save_pretrained(tmp_path)
    for found, expected in zip(PerturbationNetwork.from_pretrained(tmp_path).recent, network.recent, strict=True):
        assert torch.equal(found, expected)
    network.to("meta")  # they move with the weights, as to a GPU
    assert [values.device.type for values in network.recent] == ["meta", "meta"]


def test_saved_and_loaded_without_pickle(tmp_path):
    network = PerturbationNetwork(4, characteristics=["loss", "margin"], hidden_size=7, bound=3.0)
    network.update_statistics(INPUTS[:, :2])
    with torch.no_grad():
        network.output.weight.normal_()
    network.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors"}
    loaded = PerturbationNetwork.from_pretrained(tmp_path)
    assert loaded.characteristics == ("loss", "margin")
    assert torch.equal(loaded(INPUTS[:, :2], LABELS), network(INPUTS[:, :2], LABELS))


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="unknown: hue"):
        PerturbationNetwork(4, characteristics=["hue"])
    with pytest.raises(ValueError, match="bound is -1"):
        PerturbationNetwork(4, bound=-1.0)
    with pytest.raises(ValueError, match="activation is 'gelu'; choose one of tanh, relu"):
        PerturbationNetwork(4, activation="gelu")


def test_a_two_layer_relu_perceptron():
    network = PerturbationNetwork(4, characteristics=["loss", "margin"], activation="relu")
    with torch.no_grad():
        network.output.weight.normal_(generator=torch.Generator().manual_seed(4))
    hidden = (INPUTS[:, :2] / (1 + 1e-6) ** 0.5 @ network.hidden.weight.T + network.hidden.bias).clamp(min=0)
    torch.testing.assert_close(network(INPUTS[:, :2], LABELS), hidden @ network.output.weight.T)


def test_several_evidences_pass_gates_that_start_at_one_together():
    names = ["background_margin", "loss", "attribute_margin", "bias_margin"]
    network = PerturbationNetwork(4, characteristics=names, perturbed_logits="own")
    u_z = torch.randn(64, 3, 4, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(network(INPUTS[:, :4], LABELS, u_z), u_z.mean(1))
    with torch.no_grad():
        network.output.bias[-2] = 100.0  # of the second
        network.output.bias[[-3, -1]] = -100.0
    torch.testing.assert_close(network(INPUTS[:, :4], LABELS, u_z), 3 * u_z[:, 1])


def test_background_logits_pass_a_gate_that_starts_at_one():
    network = PerturbationNetwork(4, characteristics=["loss", "background_margin"])
    background = torch.randn(64, 4, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(network(INPUTS[:, :2], LABELS, background), background)
    with torch.no_grad():
        network.output.bias[-1] = 100.0
    torch.testing.assert_close(network(INPUTS[:, :2], LABELS, background), 3 * background)
