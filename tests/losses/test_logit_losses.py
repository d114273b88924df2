"""Losses that move logits, by features or without: the papers' formulas by hand and by loops."""

import math

import pytest
import torch
import torch.nn.functional as F

from clp_hf.losses import (
    ISDA,
    RISDA,
    AdaptiveLogitAdjustment,
    DeterminantMutualInformation,
    LogitPerturbation,
    class_moments,
    effective_number_weights,
)
from clp_hf.losses.class_moments import ClassMoments

COUNTS = torch.tensor([100, 10, 5])
LABELS = torch.tensor([0, 1, 2, 0, 1, 0])


@pytest.fixture
def seen():
    """Features (6, 4), a head's weight (3, 4) and their logits, in float64."""
    generator = torch.Generator().manual_seed(0)
    features, weight = (
        torch.randn(rows, 4, generator=generator, dtype=torch.float64).requires_grad_() for rows in (6, 3)
    )
    return features @ weight.T + 0.1, features, weight


def moments_of(features, num_labels=3):
    moments = ClassMoments(num_labels, features.shape[1]).double()
    for part in (slice(0, 2), slice(2, 3), slice(3, 6)):
        moments.update(features[part], LABELS[part])
    return moments


def quadratic_forms(weight, covariances):
    """By loops, (n, C)."""
    return torch.stack(
        [
            torch.stack([(row - weight[y]) @ covariances[i] @ (row - weight[y]) for row in weight])
            for i, y in enumerate(LABELS)
        ]
    )


# ---- features --------------------------------------------------------------------------------------------------------


def test_moments_of_batches_are_those_of_all_images(seen, monkeypatch):
    _, features, _ = seen
    full = moments_of(features)
    monkeypatch.setattr(class_moments, "FULL_COVARIANCES", 3 * 4**2 - 1)
    diagonal = moments_of(features)
    assert full.counts.tolist() == [3, 2, 1]
    for label in range(3):
        own = features[label == LABELS].detach()
        torch.testing.assert_close(full.means[label], own.mean(0))
        covariance = (own - own.mean(0)).T @ (own - own.mean(0)) / len(own)
        torch.testing.assert_close(full.covariances[label], covariance)
        torch.testing.assert_close(diagonal.covariances[label], covariance.diagonal())


@pytest.mark.parametrize("most", [class_moments.FULL_COVARIANCES, 0])
def test_isda_is_its_formula(seen, monkeypatch, most):
    logits, features, weight = seen
    monkeypatch.setattr(class_moments, "FULL_COVARIANCES", most)
    loss = ISDA(COUNTS, 4, strength=0.5).double()
    loss.progress = 0.4
    value = loss(logits, LABELS, None, features, weight)
    covariances = moments_of(features).covariances if most else torch.diag_embed(moments_of(features).covariances)
    torch.testing.assert_close(loss.moments.counts, torch.tensor([3.0, 2, 1]).double())
    augmented = logits + 0.5 * 0.4 / 2 * quadratic_forms(weight, covariances[LABELS])
    expected = F.cross_entropy(augmented, LABELS)
    torch.testing.assert_close(value, expected)
    # through the head's weight too, on both its ways
    for ours, theirs in zip(
        *(torch.autograd.grad(one, (features, weight), retain_graph=True) for one in (value, expected)), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def test_isda_bounds_the_loss_of_augmented_features(seen):
    logits, features, weight = seen
    loss = ISDA(COUNTS, 4, strength=1.0).double().eval()
    loss.moments.covariances[:] = torch.eye(4)
    loss.progress = 1.0
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(2000, 6, 4, generator=generator, dtype=torch.float64)
    moved = (logits + noise @ weight.T).flatten(0, 1)
    sampled = F.cross_entropy(moved, LABELS.repeat(2000))
    assert sampled < loss(logits, LABELS, None, features, weight) < sampled + 2
    assert not loss.moments.counts.any()  # nothing is taken in while evaluating
    loss.progress = 0.0
    torch.testing.assert_close(loss(logits, LABELS, None, features, weight), F.cross_entropy(logits, LABELS))


@pytest.mark.parametrize("most", [class_moments.FULL_COVARIANCES, 0])
def test_risda_borrows_from_related_classes(seen, monkeypatch, most):
    logits, features, weight = seen
    monkeypatch.setattr(class_moments, "FULL_COVARIANCES", most)
    loss = RISDA(COUNTS, 4, alpha=0.5, beta=0.75, head_share=1 / 3, start=0.8).double()
    torch.testing.assert_close(loss(logits, LABELS, None, features, weight), F.cross_entropy(logits, LABELS))
    means = torch.stack([logits.detach().softmax(-1)[label == LABELS].mean(0) for label in range(3)])
    torch.testing.assert_close(loss.relations, 0.9 * torch.eye(3).double() + 0.1 * means)
    loss.eval()
    loss.progress = 0.8
    relations, moments = loss.relations, moments_of(features)
    own = moments.covariances if most else torch.diag_embed(moments.covariances)
    borrowed = torch.einsum("yk,kde->yde", relations, own)
    borrowed[0] = own[0]  # the most frequent third keeps its own
    moved = relations @ moments.means - moments.means
    shifts = torch.stack([(weight - weight[y]) @ moved[y] for y in LABELS])
    augmented = logits + 0.8 * (0.5 * shifts + 0.75 / 2 * quadratic_forms(weight, borrowed[LABELS]))
    weights = effective_number_weights(COUNTS, 0.9999)[LABELS]
    expected = (weights * F.cross_entropy(augmented, LABELS, reduction="none")).mean()
    torch.testing.assert_close(loss(logits, LABELS, None, features, weight), expected)


# ---- logits ----------------------------------------------------------------------------------------------------------


def test_ala_by_hand():
    loss = AdaptiveLogitAdjustment(torch.tensor([30, 10]), scale=2.0)
    torch.testing.assert_close(loss.quantity, torch.tensor([1 / math.log(4), 1 / math.log(2)]))
    cosines = torch.tensor([[0.8, -0.2], [0.1, -0.4]])
    adjusted = torch.tensor([[0.8 - 0.1 / math.log(4), -0.2], [0.1, -0.4 - 0.7 / math.log(2)]])
    labels = torch.tensor([0, 1])
    torch.testing.assert_close(loss(cosines, labels), F.cross_entropy(2 * adjusted, labels))


def test_lpl_steps_down_for_head_and_up_for_tail_classes():
    loss = LogitPerturbation(torch.tensor([100, 50]), step_size=0.1, bound=0.1, head_bound=0.1, head_share=0.5)
    assert loss.steps.tolist() == [1, 1]
    logits, labels = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 2.0]]), torch.tensor([0, 0, 1])
    # residuals of a class are along (1, −1) / √2, whatever their size: towards the own class for the head
    step = 0.1 / math.sqrt(2)
    expected = torch.tensor([[step, -step], [step, -step], [step, -step]])
    torch.testing.assert_close(loss.perturbations(logits, labels), expected)
    torch.testing.assert_close(loss(logits, labels), F.cross_entropy(logits + expected, labels))


def test_lpl_stays_within_its_bounds_and_moves_the_loss():
    loss = LogitPerturbation(COUNTS)
    assert loss.steps.tolist() == [20, 50, 100]
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    found = loss.perturbations(logits, LABELS)
    before, after = (F.cross_entropy(values, LABELS, reduction="none") for values in (logits, logits + found))
    for label, bound in enumerate((0.2, 0.5, 1.0)):
        own = label == LABELS
        assert (found[own] == found[own][0]).all()
        assert found[own][0].norm() <= bound + 1e-5
        assert (after[own].mean() < before[own].mean()) == (label == 0)
    plain = LogitPerturbation(COUNTS, bound=0.0, head_bound=0.0)
    torch.testing.assert_close(plain(logits, LABELS), F.cross_entropy(logits, LABELS))


def test_dmi_is_minus_log_of_the_determinant():
    loss = DeterminantMutualInformation(warm_up=0.5)
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64).mul(3).requires_grad_()
    assert loss(logits, LABELS) == F.cross_entropy(logits, LABELS)
    loss.progress = 0.5
    joint = F.one_hot(LABELS).double().T @ logits.softmax(-1) / 6
    joint = joint + 1e-3 * torch.diag(torch.tensor([3, 2, 1]) / 6)
    torch.testing.assert_close(loss(logits, LABELS), -joint.det().abs().log())
    # a class that is not in the batch has no row and no column
    rows = LABELS != 1
    part = logits[rows].softmax(-1)[:, [0, 2]]
    joint = F.one_hot(LABELS[rows]).double()[:, [0, 2]].T @ part / 4 + 1e-3 * torch.diag(torch.tensor([3, 1]) / 4)
    torch.testing.assert_close(loss(logits[rows], LABELS[rows]), -joint.det().abs().log())


def test_dmi_differs_by_a_constant_where_labels_are_wrong():
    """Each image with every label, as often as noise of its class has it."""
    noise = torch.tensor([[3, 1], [1, 4]])  # of each class, how many copies get which label
    loss = DeterminantMutualInformation(warm_up=0.0)
    differences = []
    for seed in range(2):
        logits = torch.randn(4, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 3
        logits = logits[[0] * 5 + [1] * 5 + [2] * 4 + [3] * 4]  # 5 copies of an image of class 1, 4 of one of class 0
        labels = torch.tensor([1] * 10 + [0] * 8)
        noisy = torch.cat([torch.arange(2).repeat_interleave(noise[label]) for label in (1, 1, 0, 0)])
        differences.append(loss(logits, noisy) - loss(logits, labels))
    torch.testing.assert_close(*differences, rtol=0.02, atol=0.02)
