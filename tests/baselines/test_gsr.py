from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from clp_hf.baselines import gsr, worst_and_average
from clp_hf.baselines.gsr import group_losses, influences
from clp_hf.bilevel import SoftmaxRegression

SETTING = {"penalty": 0.01, "rate": 1.0, "temperature": 1.0, "steps": 20}


def worst_group(result, test):
    return worst_and_average(result.logits(test.features), test.labels, test.groups)[0]


@pytest.fixture
def problem():
    """Features and labels of training and target, group weights, sample weights and a penalty, in float64."""
    generator = torch.Generator().manual_seed(0)
    features, target = (torch.randn(n, 4, generator=generator, dtype=torch.float64) + 1 for n in (30, 12))
    labels, target_labels = torch.arange(30) % 3, torch.arange(12) % 3
    groups = torch.tensor([7, 2, 7, 2, 5, 5, 7, 2, 5, 7, 7, 2])
    q = torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64)  # of the groups 2, 5, 7
    weights = torch.rand(30, generator=generator, dtype=torch.float64)
    weights[3] = 0
    return features, labels, target, target_labels, groups, q, weights / weights.mean(), 0.05


def found_influences(problem):
    features, labels, target, target_labels, groups, q, weights, penalty = problem
    losses = group_losses(target, target_labels, groups)
    ridge = torch.tensor([2 * penalty], dtype=torch.float64)
    regression = SoftmaxRegression(features, labels, 3)
    influence, solution = influences(regression, lambda *head: (losses(*head) @ q).sum(), weights[None], ridge)
    return influence[0], solution, regression


def outer_loss(problem, weight, bias):
    _, _, target, target_labels, groups, q, _, _ = problem
    losses = F.cross_entropy(target @ weight.T + bias, target_labels, reduction="none")
    return sum(share * losses[groups == group].mean() for share, group in zip(q, (2, 5, 7), strict=True))


def test_influence_is_gradient_times_inverse_hessian_times_gradient(problem):
    """(∇CE_i + 2 penalty θ)ᵀ H⁻¹ ∇ Σ q_g L_g, from autograd's dense Hessian."""
    features, labels, *_, weights, penalty = problem
    found, solution, regression = found_influences(problem)
    inputs = torch.cat([features, regression.constant.expand(30, 1)], 1)  # whose last weight makes the bias

    def objective(theta):
        losses = F.cross_entropy(inputs @ theta.view(3, 5).T, labels, reduction="none")
        return (weights * losses).sum() / weights.sum() + penalty * theta.square().sum()

    theta = torch.cat([solution.weight[0], solution.bias[0][:, None] / regression.constant], 1).flatten()
    hessian = torch.autograd.functional.hessian(objective, theta)
    samples = torch.autograd.functional.jacobian(
        lambda theta: F.cross_entropy(inputs @ theta.view(3, 5).T, labels, reduction="none"), theta
    )
    outer = torch.autograd.functional.jacobian(
        lambda theta: outer_loss(problem, theta.view(3, 5)[:, :4], theta.view(3, 5)[:, 4] * regression.constant), theta
    )
    expected = (samples + 2 * penalty * theta) @ torch.linalg.solve(hessian, outer)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)


def test_influence_foretells_retraining_with_more_of_a_sample(problem):
    features, *_, weights, penalty = problem
    found, _, regression = found_influences(problem)
    none, ridge, change = features.new_zeros(1, 30, 3), torch.tensor([2 * penalty], dtype=torch.float64), 1e-4

    def retrained(weights):
        solution = regression.solve(none, (weights / weights.mean())[None], ridge)
        return outer_loss(problem, solution.weight[0], solution.bias[0])

    for sample in (0, 3, 17):  # 3 has no weight yet
        nudge = change * torch.eye(30, dtype=torch.float64)[sample]
        decrease = retrained(weights) - retrained(weights + nudge)
        torch.testing.assert_close(decrease, found[sample] * change / 30, rtol=1e-2, atol=1e-9)


@pytest.mark.parametrize("num_classes", [2, 3])
def test_a_small_target_set_lifts_the_worst_group_without_training_groups(num_classes, spurious):
    train, validation, test, head = spurious(num_classes)
    train, target, validation = replace(train, groups=None), validation[:60], validation[60:]
    plain = gsr(train, validation, head, [SETTING | {"steps": 0}], target=target)
    result = gsr(train, validation, head, [SETTING], target=target)
    assert worst_group(result, test) > worst_group(plain, test) + 0.1
    assert 0 < result.settings["step"] <= SETTING["steps"]


def test_no_step_is_training_with_equal_weights(spurious):
    train, validation, _, head = spurious()
    result = gsr(train, validation, head, [SETTING | {"steps": 0}])
    mean, std = train.features.mean(0), train.features.std(0, correction=0)
    weight, bias = (result.weight * std).requires_grad_(), result.bias + result.weight @ mean
    loss = F.cross_entropy((train.features - mean) / std @ weight.T + bias, train.labels)
    (gradient,) = torch.autograd.grad(loss + 0.01 * weight.square().sum(), weight)
    assert gradient.abs().max() < 1e-4


def test_weights_are_learned_on_target_and_selected_on_validation(spurious):
    train, validation, _, head = spurious()
    default, same = (gsr(train, validation, head, [SETTING], target=target) for target in (None, validation))
    assert torch.equal(default.weight, same.weight)
    other = gsr(train, validation, head, [SETTING], target=validation[:40])
    assert not torch.equal(default.weight, other.weight)
    score, _ = worst_and_average(other.logits(validation.features), validation.labels, validation.groups)
    assert other.score == score


def test_errors_say_what_the_target_set_lacks(spurious):
    train, validation, _, head = spurious()
    without = replace(validation, groups=None)
    for arguments in ({"target": without}, {}):
        with pytest.raises(ValueError, match="group of every target sample"):
            gsr(train, without, head, [SETTING], **arguments)
    gsr(train, without, head, [SETTING | {"steps": 0}], target=validation)  # validation may lack them
    with pytest.raises(ValueError, match="0 samples"):
        gsr(train, validation, head, [SETTING], target=validation[:0])
    with pytest.raises(ValueError, match=r"\(2, 5\); expected"):
        gsr(train, validation, head, [SETTING], target=replace(validation, features=validation.features[:, 1:]))
    for wrong in ({"penalty": 0.0}, {"rate": 0}, {"temperature": -1.0}, {"steps": -1}):
        with pytest.raises(ValueError, match="above 0, steps 0 or more"):
            gsr(train, validation, head, [SETTING | wrong])
