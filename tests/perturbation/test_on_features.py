"""Evidence of a whole training set: each image is judged by what was not fitted on it, and by no more than it needs."""

import dataclasses

import pytest
import torch

from clp_hf.perturbation.evidence import ON_FEATURES, Material, agreement, class_weights, evidence_on_features

CLASSES = 3


def drawn(n, correlation, seed):
    """Features, labels and attributes; features hold the class (0 to 2), the attribute (3, 4) and noise (5 to 7)."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % CLASSES
    attributes = torch.where(torch.rand(n, generator=generator) < correlation, labels % 2, 1 - labels % 2)
    features = torch.randn(n, 8, generator=generator)
    features[:, :3] += 2 * torch.eye(3)[labels]
    features[:, 3:5] += 4 * torch.eye(2)[attributes]
    return features, labels, attributes


@pytest.fixture
def material():
    features, labels, _ = drawn(240, 0.95, seed=0)
    meta_features, meta_labels, meta_attributes = drawn(60, 0.5, seed=1)
    background = features.clone()
    background[:, :3] = 0
    return Material(
        features, labels, CLASSES, class_weights(labels, CLASSES), torch.arange(240) % 4, background,
        torch.ones(240, dtype=torch.bool), meta_features, meta_labels, meta_attributes, 1e-3,
    )  # fmt: skip


@pytest.mark.parametrize("kind", ON_FEATURES)
def test_it_has_zero_mean_and_follows_the_attribute(material, kind):
    evidence = evidence_on_features(kind, material)
    assert evidence.shape == (240, CLASSES)
    torch.testing.assert_close(evidence.sum(1), torch.zeros(240), atol=1e-4, rtol=0)
    assert agreement(evidence, material.labels) > 0.4  # two of three classes go along with one attribute


@pytest.mark.parametrize("kind", ON_FEATURES)
def test_the_own_label_does_not_reach_an_image(material, kind):
    """But for what the attribute tells of the class (B), which is counted over all images; and for rounding."""
    labels = material.labels.clone()
    labels[100] = (labels[100] + 1) % CLASSES
    before, after = (evidence_on_features(kind, of) for of in (material, dataclasses.replace(material, labels=labels)))
    change = (after - before).abs().amax(1) / before.abs().max()
    fitted_on_it = material.fold != material.fold[100]
    assert change[fitted_on_it].max() > 0.05
    assert change[100] < 0.01


def test_an_image_without_a_usable_mask_gets_no_background_evidence_and_gives_none(material):
    maskable = torch.arange(240) != 5
    evidence = evidence_on_features("background", dataclasses.replace(material, maskable=maskable))
    assert not evidence[5].any()
    garbage = material.background.clone()
    garbage[5] = -garbage[5]
    again = evidence_on_features("background", dataclasses.replace(material, maskable=maskable, background=garbage))
    torch.testing.assert_close(again, evidence, atol=1e-2, rtol=0)


def test_a_probe_no_better_than_chance_is_told_of_with_its_accuracy(material):
    blind = dataclasses.replace(material, meta_attributes=torch.arange(60) // 3 % 2)
    with pytest.warns(UserWarning, match=r"of the 60 meta images .* \d+% \(cross-validated\), no better than chance"):
        evidence_on_features("attribute", blind)


def test_classes_count_the_same():
    weights = class_weights(torch.tensor([0, 0, 0, 2]), 3)
    torch.testing.assert_close(weights, torch.tensor([2 / 3, 2 / 3, 2 / 3, 2.0]))
