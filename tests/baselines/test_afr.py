from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from clp_hf.baselines import afr, worst_and_average
from clp_hf.baselines.afr import _curvature

FREE = {"gamma": 4.0, "penalty": 0.0, "steps": 500}


def test_infinite_penalty_or_no_step_keeps_the_head(spurious):
    train, validation, _, (weight, bias) = spurious()
    for setting in ({"gamma": 0, "penalty": float("inf"), "steps": 50}, FREE | {"steps": 0}):
        result = afr(train, validation, (weight, bias), [setting])
        torch.testing.assert_close(result.weight, weight, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(result.bias, bias, rtol=1e-4, atol=1e-4)


def test_a_stronger_penalty_stays_nearer(spurious):
    train, validation, _, (weight, bias) = spurious()
    heads = [afr(train, validation, (weight, bias), [FREE | {"penalty": penalty}]) for penalty in (0, 0.01, 1, 1e6)]
    distances = [(head.weight - weight).norm() for head in heads]
    assert distances[0] > distances[1] > distances[2] > distances[3]


@pytest.mark.parametrize("num_classes", [2, 3])
def test_beats_the_erm_head_without_training_groups(num_classes, spurious):
    train, validation, test, head = spurious(num_classes)
    result = afr(replace(train, groups=None), validation, head)
    erm, _ = worst_and_average(test.logits, test.labels, test.groups)
    worst, _ = worst_and_average(result.logits(test.features), test.labels, test.groups)
    assert worst > erm + 0.1


def test_descends_the_loss_of_the_docstring(spurious):
    """Against autograd: after many steps the gradient of the penalised, weighted loss is zero."""
    train, validation, _, (weight, bias) = spurious()
    train = train[(train.labels == 0) | (torch.arange(len(train)) % 5 == 0)]  # a rare class
    mean, std = train.features.mean(0), train.features.std(0, correction=0)
    inputs = torch.cat([(train.features - mean) / std, torch.ones(len(train), 1)], 1)
    setting = {"gamma": 3.0, "penalty": 0.05, "steps": 3000}
    result = afr(train, validation, (weight, bias), [setting])

    def standardised(weight, bias):
        return torch.cat([weight * std, (bias + weight @ mean)[:, None]], 1)

    own = train.logits.softmax(1)[torch.arange(len(train)), train.labels]
    weights = torch.exp(-setting["gamma"] * own) / train.labels.bincount()[train.labels]
    theta = standardised(result.weight, result.bias).requires_grad_()
    loss = (weights / weights.sum() * F.cross_entropy(inputs @ theta.T, train.labels, reduction="none")).sum()
    loss = loss + setting["penalty"] * (theta - standardised(weight, bias)).square().sum()
    (gradient,) = torch.autograd.grad(loss, theta)
    assert gradient.abs().max() < 1e-4


def test_step_size_is_half_the_largest_eigenvalue_of_the_weighted_moment():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(50, 8, generator=generator) * torch.arange(1, 9)
    weights = torch.rand(50, 3, generator=generator)
    moments = torch.einsum("nd,ns,ne->sde", inputs, weights, inputs)
    torch.testing.assert_close(
        _curvature(inputs, weights, 0), torch.linalg.eigvalsh(moments)[:, -1] / 2, rtol=0.05, atol=0
    )


def test_negative_settings_are_refused(spurious):
    train, validation, _, head = spurious()
    with pytest.raises(ValueError, match="0 or more"):
        afr(train, validation, head, [FREE | {"gamma": -1}])
