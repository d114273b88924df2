"""Groups found from features that are made of an object and a place."""

import pytest
import torch

from clp_hf.discovery import agreement, discover_groups, is_shortcut
from clp_hf.features import CausalFeatures, FeatureSet

NAMES = ["crow", "duck", "gull"]


def drawn(n, classes=2, places=None, agree=0.9, seed=0, object_noise=0.3):
    """Images of which three coordinates are the object's and three the place's; and the place of each."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    other = (labels + torch.randint(1, classes, (n,), generator=generator)) % classes
    place = torch.where(torch.rand(n, generator=generator) < agree, labels, other) if places is None else places
    objects = 4 * torch.eye(3)[labels] + 4 * object_noise * torch.randn(n, 3, generator=generator)
    ground = 4 * torch.eye(3)[place] + 0.8 * torch.randn(n, 3, generator=generator)
    features = torch.cat([objects, ground], 1)
    background = torch.cat([torch.zeros(n, 3), ground], 1) + 0.1 * torch.randn(n, 6, generator=generator)
    images = FeatureSet(features, torch.zeros(n, classes), labels)
    return CausalFeatures(images, torch.ones(n, dtype=torch.bool), background), place


@pytest.mark.parametrize("classes", [2, 3])
def test_the_background_that_tells_the_class_makes_the_groups(classes):
    (train, place), (test, elsewhere) = drawn(1200, classes), drawn(240, classes, agree=1 / classes, seed=1)
    found = discover_groups({"train": train, "test": test}, NAMES[:classes])
    assert found.by == "background"
    assert found.names[:2] == ["crow_on_background_of_crow", "crow_on_background_of_duck"]
    assert len(found.names) == classes**2
    for name, split, truth in (("train", train, place), ("test", test, elsewhere)):
        measured = agreement(found.groups[name], split.labels * classes + truth, split.labels)
        assert measured["balanced"] > 0.95
        assert torch.equal(found.groups[name] // classes, split.labels)
        assert found.confidence[name].min() >= -1
        assert found.confidence[name].max() <= 1


def test_a_background_that_says_nothing_leaves_it_to_the_errors():
    train, _ = drawn(600, agree=0.5, object_noise=0.6)
    found = discover_groups({"train": train}, NAMES[:2])
    assert found.by == "errors"
    assert not is_shortcut(found.told)
    wrong = found.groups["train"] % 2 != train.labels
    assert 0.02 < wrong.float().mean() < 0.3
    assert found.names == ["crow_taken_for_crow", "crow_taken_for_duck", "duck_taken_for_crow", "duck_taken_for_duck"]


def test_the_number_of_groups_may_be_given():
    train, _ = drawn(600)
    found = discover_groups({"train": train}, NAMES[:2], per_class=3)
    assert len(found.names) == 6
    assert list(found.silhouettes) == [3]


def test_rare_groups_are_merged_into_the_most_frequent_of_their_class():
    places = torch.arange(400) % 2
    places[[0, 2, 4]] = 1  # three crows on the place of ducks
    places[1:80:2] = 0
    train, _ = drawn(400, places=places)
    groups = discover_groups({"train": train}, NAMES[:2], by="background").groups["train"]
    assert torch.bincount(groups, minlength=4).tolist() == [200, 0, 40, 160]


def test_the_same_features_give_the_same_groups():
    train, _ = drawn(300)
    first, second = (discover_groups({"train": train}, NAMES[:2]) for _ in range(2))
    assert torch.equal(first.groups["train"], second.groups["train"])


@pytest.mark.parametrize(
    ("settings", "said"), [({"by": "luck"}, "'luck'"), ({"per_class": 1}, "groups_per_class is 1")]
)
def test_what_cannot_be_is_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        discover_groups({"train": drawn(60)[0]}, NAMES[:2], **settings)


def test_agreement_matches_groups_within_a_class_and_counts_rare_ones_alike():
    labels = torch.tensor([0, 0, 0, 0, 1, 1])
    truth = torch.tensor([0, 0, 0, 1, 2, 3])
    found = torch.tensor([1, 1, 0, 0, 2, 2])
    measured = agreement(found, truth, labels)
    assert measured["accuracy"] == pytest.approx((2 + 1 + 1) / 6)
    assert measured["balanced"] == pytest.approx((2 / 3 + 1 + 1 + 0) / 4)
    assert measured["majority"] == pytest.approx((3 + 1) / 6)
