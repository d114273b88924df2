"""Wrong labels among images of which some are rare: on an unusual background."""

import pytest
import torch

from clp_hf.features import CausalFeatures, FeatureSet
from clp_hf.suspect_labels import suspect_labels


def drawn(n=800, classes=2, agree=0.93, wrong=0.1, seed=0):
    """Features as of a frozen backbone, with labels of which some are wrong; classes, places, and how to swap these."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.arange(n) % classes
    other = (truth + torch.randint(1, classes, (n,), generator=generator)) % classes
    place = torch.where(torch.rand(n, generator=generator) < agree, truth, other)
    flipped = torch.rand(n, generator=generator) < wrong
    labels = torch.where(flipped, (truth + 1) % classes, truth)
    objects = 3 * torch.eye(classes)[truth] + 0.5 * torch.randn(n, classes, generator=generator)

    def before(places):
        ground = 6 * torch.eye(classes)[places] + 0.5 * torch.randn(n, classes, generator=generator)
        return ground, torch.cat([objects, ground], 1)

    ground, features = before(place)
    background = torch.cat([torch.zeros(n, classes), ground], 1)
    images = FeatureSet(features, torch.zeros(n, classes), labels)
    of = CausalFeatures(images, torch.ones(n, dtype=torch.bool), background)
    return of, truth, place, flipped, lambda places: before((places + 1) % classes)[1]


@pytest.mark.parametrize("classes", [2, 3])
def test_wrong_labels_are_found_and_rare_images_are_not_taken_for_them(classes):
    images, truth, place, flipped, swapped = drawn(classes=classes)
    found = suspect_labels(images, classes, swapped)
    assert found.told["background"] > 0.75 * found.told["image"]
    rare = (place != truth) & ~flipped
    assert found.flagged[flipped].float().mean() > 0.85
    assert found.flagged[rare].float().mean() < 0.1
    assert flipped[found.flagged].float().mean() > 0.9
    hits = found.flagged & flipped
    assert (found.should_be[hits] == truth[hits]).float().mean() > 0.95


def test_the_list_is_ranked_and_holds_what_is_flagged():
    images, *_, swapped = drawn()
    found = suspect_labels(images, 2, swapped)
    assert sorted(found.ranked.tolist()) == found.flagged.nonzero()[:, 0].tolist()
    assert (found.suspicion[found.ranked].diff() <= 0).all()
    assert not (found.rare & found.flagged).any()


def test_caution_is_about_images_on_the_background_of_another_class_alone():
    images, *_, swapped = drawn()
    bold, careful = (suspect_labels(images, 2, swapped, caution) for caution in (0.0, 50.0))
    assert careful.flagged.sum() < bold.flagged.sum()
    assert not (careful.flagged & ~bold.flagged).any()


def test_where_the_background_is_no_shortcut_nothing_is_swapped_and_nothing_is_rare():
    images, _, _, flipped, _ = drawn(agree=0.5)

    def never(places):
        raise AssertionError("asked for other backgrounds")

    found = suspect_labels(images, 2, never)
    assert found.flagged[flipped].float().mean() > 0.9
    assert flipped[found.flagged].float().mean() > 0.9
    assert not found.rare.any()


def test_clean_labels_are_hardly_suspect():
    images, *_, swapped = drawn(wrong=0.0)
    assert suspect_labels(images, 2, swapped).flagged.float().mean() < 0.02


def test_balanced_test_images_do_not_hide_the_shortcut():
    images, _, _, flipped, swapped = drawn()
    others, *_, their_swapped = drawn(agree=0.5, wrong=0.0, seed=1)

    def joined(name):
        return torch.cat([getattr(images.images, name), getattr(others.images, name)])

    both = CausalFeatures(
        FeatureSet(joined("features"), joined("logits"), joined("labels")),
        torch.cat([images.maskable, others.maskable]),
        torch.cat([images.background, others.background]),
    )
    train = torch.arange(len(both)) < len(images)
    found = suspect_labels(
        both, 2, lambda places: torch.cat([swapped(places[train]), their_swapped(places[~train])]), learn_from=train
    )
    assert found.told["background"] > 0.75 * found.told["image"]
    assert found.flagged[train][flipped].float().mean() > 0.85
    assert found.flagged[~train].float().mean() < 0.05
