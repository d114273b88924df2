import sys
import warnings
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from clp_hf.baselines import group_dro, logistic_regression, worst_and_average

SETTING = {"penalty": 0.01, "adjustment": 0.0}


def standardised_losses(train, result):
    """Mean cross-entropy of every group, and the squared length of the head on standardised features."""
    losses = F.cross_entropy(result.logits(train.features), train.labels, reduction="none")
    means = torch.stack([losses[train.groups == group].mean() for group in train.groups.unique()])
    return means, (result.weight * train.features.std(0, correction=0)).square().sum()


def objective(train, result, penalty, adjustment=0.0):
    means, length = standardised_losses(train, result)
    sizes = train.groups.unique(return_counts=True)[1]
    return (means + adjustment / sizes.sqrt()).max() + penalty * length


@pytest.mark.parametrize("num_classes", [2, 3])
def test_lifts_the_worst_group_above_class_balance(num_classes, spurious):
    train, validation, test, head = spurious(num_classes)
    plain, robust = (method(train, validation, head) for method in (logistic_regression, group_dro))
    plain, robust = (
        worst_and_average(result.logits(test.features), test.labels, test.groups)[0] for result in (plain, robust)
    )
    assert robust > plain + 0.1


@pytest.mark.parametrize("adjustment", [0.0, 2.0])
def test_no_head_has_a_better_worst_group_loss(adjustment, spurious):
    """Against a thousand steps of subgradients from the solution, which may not find anything below."""
    train, validation, _, head = spurious()
    setting = SETTING | {"adjustment": adjustment}
    result = group_dro(train, validation, head, [setting])
    best = float(objective(train, result, **setting))
    moved = replace(result, weight=result.weight.clone().requires_grad_(), bias=result.bias.clone().requires_grad_())
    optimizer = torch.optim.Adam([moved.weight, moved.bias], lr=1e-3)
    for _ in range(1000):
        optimizer.zero_grad()
        loss = objective(train, moved, **setting)
        assert loss > best - 2e-3
        loss.backward()
        optimizer.step()


def test_groups_that_matter_have_equal_losses(spurious):
    train, validation, _, head = spurious()
    means, _ = standardised_losses(train, group_dro(train, validation, head, [SETTING]))
    assert (means > means.max() - 0.01).sum() >= 2


def test_adjustment_favours_small_groups(spurious):
    train, validation, _, head = spurious()
    plain, adjusted = (
        standardised_losses(train, group_dro(train, validation, head, [SETTING | {"adjustment": value}]))[0]
        for value in (0.0, 2.0)
    )
    smallest = train.groups.bincount().argmin()
    assert adjusted[smallest] < plain[smallest] - 0.01


def test_says_when_it_has_not_converged(spurious, monkeypatch):
    train, validation, _, head = spurious()
    monkeypatch.setattr(sys.modules["clp_hf.baselines.group_dro"], "MAX_STEPS", 1)
    with pytest.warns(UserWarning, match="from its best objective after 1 steps"):
        group_dro(train, validation, head, [SETTING])
    monkeypatch.undo()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        group_dro(train, validation, head, [SETTING])


def test_errors(spurious):
    train, validation, _, head = spurious()
    with pytest.raises(ValueError, match="group of every training sample"):
        group_dro(replace(train, groups=None), validation, head)
    for wrong in ({"penalty": 0.0}, {"adjustment": -1.0}):
        with pytest.raises(ValueError, match="adjustment 0 or more"):
            group_dro(train, validation, head, [SETTING | wrong])
