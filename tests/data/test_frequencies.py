"""How often images are drawn."""

from types import SimpleNamespace

import numpy as np
import pytest

from clp_hf.data.frequencies import group_subset_weights, train_sampler

GROUPS = np.array([0, 0, 0, 0, 1, 1, 3])


class Images(SimpleNamespace):
    def __len__(self):
        return len(self.labels)


IMAGES = Images(labels=GROUPS // 2, group=GROUPS, weight=np.array([1.0, 7, 1, 1, 1, 1, 0]))


def test_a_subset_has_as_many_of_every_group_as_the_smallest():
    weights = group_subset_weights(GROUPS[:6], seed=0)
    assert weights[4:].tolist() == [1, 1]
    assert sorted(weights[:4]) == [0, 0, 1, 1]
    assert any((group_subset_weights(GROUPS[:6], seed) != weights).any() for seed in range(1, 9))
    assert group_subset_weights(GROUPS, seed=0).sum() == 3


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        ("class", [1 / 6] * 6 + [1]),
        ("group", [1 / 4] * 4 + [1 / 2] * 2 + [1]),
        ("weight", [1, 7, 1, 1, 1, 1, 0]),
    ],
)
def test_weights_of_a_draw(sampling, expected):
    sampler = train_sampler(IMAGES, sampling)
    assert sampler.weights.tolist() == pytest.approx(expected)
    assert len(sampler) == len(IMAGES)


def test_what_is_lacking_is_named():
    images = Images(labels=GROUPS, group=None, weight=None)
    with pytest.raises(ValueError, match="train_sampling needs the group of every training image"):
        train_sampler(images, "group_subset")
    with pytest.raises(ValueError, match="train_sampling needs the weight of every"):
        train_sampler(images, "weight")
