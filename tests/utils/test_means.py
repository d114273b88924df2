"""Means over the steps since the last log, by name and by cell."""

import pytest
import torch

from clp_hf.utils.means import MOST_WAITING, Means


def alone(entries):
    return entries


def test_means_by_cell_are_those_of_all_batches_however_many():
    torch.manual_seed(0)
    means, values, cells = Means(), torch.randn(3 * MOST_WAITING + 7, 5), torch.randint(4, (3 * MOST_WAITING + 7, 5))
    for batch in zip(values, cells, strict=True):
        means.add_each("level", *batch)
    found = means.take(alone)
    assert found == {f"level_{cell}": pytest.approx(values[cells == cell].mean().item(), rel=1e-4) for cell in range(4)}
    assert means.take(alone) == {}


def test_a_mean_of_none_is_not_told_and_what_is_left_out_does_not_count():
    means = Means()
    means.add_where("noisy", torch.tensor([1.0, torch.nan]), torch.tensor([False, False]))
    means.add_where("clean", torch.tensor([1.0, torch.nan, 2.0]), torch.tensor([True, False, True]))
    assert means.take(alone) == {"clean": 1.5}


def test_what_was_kept_comes_back():
    means = Means()
    means.add("loss", torch.tensor(1.0))
    means.add_each("raised", torch.tensor([True, False]), torch.tensor([0, 0]))
    bring_back = means.keep()
    means.add("loss", torch.tensor(5.0))
    means.add_each("raised", torch.tensor([True, True]), torch.tensor([0, 1]))
    bring_back()
    assert means.take(alone) == {"loss": 1.0, "raised_0": 0.5}
