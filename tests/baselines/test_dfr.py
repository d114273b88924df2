from dataclasses import replace

import numpy as np
import pytest
import torch

from clp_hf.baselines import dfr, worst_and_average
from clp_hf.baselines.dfr import _balanced, _halves

SETTINGS = [{"C": 1.0}, {"C": 0.1}, {"C": 0.01}]


@pytest.mark.parametrize("num_classes", [2, 3])
def test_beats_the_erm_head_where_it_is_fooled(num_classes, spurious):
    train, validation, test, head = spurious(num_classes)
    result = dfr(train, validation, head, SETTINGS)
    erm, _ = worst_and_average(test.logits, test.labels, test.groups)
    worst, _ = worst_and_average(result.logits(test.features), test.labels, test.groups)
    assert worst > erm + 0.2


def test_strong_l1_removes_noise_coordinates(spurious):
    train, validation, _, head = spurious()
    result = dfr(train, validation, head, [{"C": 0.03}], num_draws=1)
    assert (result.weight[:, -2:] == 0).all()
    assert (result.weight[:, :2] != 0).all()


def test_seed_decides_everything(spurious):
    train, validation, _, head = spurious()
    first, again, other = (dfr(train, validation, head, SETTINGS, seed) for seed in (0, 0, 1))
    assert torch.equal(first.weight, again.weight)
    assert not torch.equal(first.weight, other.weight)


def test_train_only_standardises(spurious):
    """Its labels and groups may lie: they are not used."""
    train, validation, _, head = spurious()
    lying = replace(train, labels=1 - train.labels, groups=None)
    first, second = (dfr(features, validation, head, SETTINGS[:1], num_draws=2) for features in (train, lying))
    assert torch.equal(first.weight, second.weight)
    assert "half of validation" in first.rule
    wider = replace(train, features=3 * train.features)
    assert not torch.allclose(dfr(wider, validation, head, SETTINGS[:1], num_draws=2).weight, first.weight)


def test_halves_split_every_group_and_draws_are_balanced():
    groups = torch.tensor([0] * 10 + [3] * 4 + [2] * 7)
    rng = np.random.default_rng(0)
    first, second = _halves(groups, rng)
    assert sorted(torch.cat([first, second]).tolist()) == list(range(21))
    assert groups[first].bincount().tolist() == [5, 0, 3, 2]
    drawn = _balanced(groups, rng)
    assert groups[drawn].bincount().tolist() == [4, 0, 4, 4]
    assert len(drawn.unique()) == 12


def test_needs_groups_of_two_and_every_class(spurious):
    train, validation, _, head = spurious()
    with pytest.raises(ValueError, match="group of every validation sample"):
        dfr(train, replace(validation, groups=None), head)
    lonely = torch.cat([torch.where(validation.groups != 2)[0], torch.where(validation.groups == 2)[0][:1]])
    with pytest.raises(ValueError, match=r"groups \[2\] have a single"):
        dfr(train, validation[lonely], head)
    with pytest.raises(ValueError, match=r"no sample of the classes \[0\]"):
        dfr(train, validation[validation.labels == 1], head)
    with pytest.raises(ValueError, match="num_draws"):
        dfr(train, validation, head, num_draws=0)
