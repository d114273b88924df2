"""Losses of methods that go by what a first network mistakes or doubts, and of borrowed contexts: by hand."""

import math

import pytest
import torch
import torch.nn.functional as F

from clp_hf.losses import ContextShift, CorrectNContrast, InvariantFeatures, LogitCorrection, Outputs
from clp_hf.losses.context_shift import context_mask

CELLS = torch.tensor([[6, 2, 0, 0], [0, 0, 1, 3]])  # two classes, two attributes


# ---- Correct-N-Contrast ----------------------------------------------------------------------------------------------


def test_contrast_by_hand():
    """Two images have a positive and a negative: 0 and 1 of class 0, by whose attributes 2 is a negative of 0."""
    features = torch.tensor([[1.0, 0], [0, 2], [3, 0], [1, 1]])
    labels, groups = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 2, 2])
    loss = CorrectNContrast(CELLS, contrastive_weight=0.75, temperature=0.5)
    s = 2 / math.sqrt(2)  # the cosine of (1, 1) with an axis, over τ
    of_0 = -(0 - math.log(math.exp(0) + math.exp(2) + math.exp(s)))  # positive 1, negatives 2 and 3
    found = loss.contrast(labels, groups, features)
    assert found.item() == pytest.approx(of_0)  # 1 has no negative; 2 and 3 no positive
    logits = torch.tensor([[1.0, 0], [0, 1], [2, 1], [0, 0]])
    whole = loss(logits, labels, groups, features)
    assert whole.item() == pytest.approx(0.75 * of_0 + 0.25 * F.cross_entropy(logits, labels).item())


def test_several_positives_share_their_normaliser():
    features = torch.eye(5)
    labels, groups = torch.tensor([0, 0, 0, 1, 0]), torch.tensor([0, 1, 1, 2, 0])
    loss = CorrectNContrast(CELLS, temperature=1.0).contrast(labels, groups, features)
    assert loss.item() == pytest.approx(math.log(3))  # anchors 0 and 4: two positives and one negative, all at 0


def test_a_batch_without_anchors_has_cross_entropy_alone():
    features = torch.randn(2, 3, requires_grad=True)
    loss = CorrectNContrast(CELLS)(torch.zeros(2, 2), torch.tensor([0, 1]), torch.tensor([0, 3]), features)
    assert loss.item() == pytest.approx(0.25 * math.log(2))
    loss.backward()
    assert not features.grad.any()


def test_positives_draw_together_and_negatives_apart():
    torch.manual_seed(0)
    features = torch.randn(40, 4, requires_grad=True)
    labels, attributes = torch.arange(40) % 2, torch.arange(40) // 2 % 2
    loss = CorrectNContrast(CELLS)
    optimizer = torch.optim.Adam([features], 0.1)
    for _ in range(100):
        optimizer.zero_grad()
        loss.contrast(labels, 2 * labels + attributes, features).backward()
        optimizer.step()
    units = F.normalize(features.detach(), dim=1)
    cosines, same, alike = (units @ units.T), labels[:, None] == labels, attributes[:, None] == attributes
    assert cosines[same & ~alike].min() > cosines[~same & alike].max() + 0.3
    least = math.log(10)  # of ten positives that share a normaliser
    assert least < loss.contrast(labels, 2 * labels + attributes, features).item() < least + 0.05


# ---- Logit Correction ------------------------------------------------------------------------------------------------


def test_corrected_logits_by_hand():
    loss = LogitCorrection(CELLS)
    shares = torch.tensor([[6 / 7, 1 / 7], [2 / 5, 3 / 5]])  # P(class | attribute)
    torch.testing.assert_close(loss.shares, shares[[0, 1, 0, 1]])
    assert loss.is_rare.tolist() == [False, True, True, False]
    logits, labels, groups = torch.zeros(2, 2), torch.tensor([0, 1]), torch.tensor([0, 2])
    log = (shares[[0, 0]] + 1e-4).log()
    expected = F.cross_entropy(log, labels)
    assert loss(logits, labels, groups).item() == pytest.approx(expected.item(), rel=1e-6)
    assert LogitCorrection(CELLS, strength=0.0)(logits, labels, groups).item() == pytest.approx(math.log(2), rel=1e-4)


def test_a_classifier_by_the_object_is_optimal_and_one_by_the_attribute_pays():
    """With as many images as the cells say, the optimum of u is no function of the attribute."""
    groups = torch.repeat_interleave(torch.tensor([0, 1, 2, 3]), torch.tensor([60, 20, 10, 30]))
    labels = groups // 2
    bias = torch.zeros(2, 2, requires_grad=True)  # logits by attribute
    loss = LogitCorrection(10 * CELLS)
    optimizer = torch.optim.SGD([bias], 1.0)
    for _ in range(300):
        optimizer.zero_grad()
        loss(bias[groups % 2], labels, groups).backward()
        optimizer.step()
    torch.testing.assert_close(bias[:, 0] - bias[:, 1], torch.zeros(2), atol=1e-2, rtol=0)


def test_partners_are_of_the_class_and_of_a_rare_group():
    loss = LogitCorrection(CELLS)
    labels, groups = torch.tensor([0, 0, 0, 1, 1]), torch.tensor([0, 0, 1, 3, 3])
    drawn = torch.stack([loss.partners(labels, groups) for _ in range(50)])
    assert (drawn[:, :3] == 2).all()
    assert set(drawn[:, 3:].flatten().tolist()) == {3, 4}  # no rare one: any of the class


@pytest.mark.parametrize(("progress", "least"), [(0.0, 0.98), (1 / 6, 0.0)])
def test_images_and_frequencies_are_mixed_alike(progress, least):
    loss, shown = LogitCorrection(CELLS), []
    loss.progress = progress
    labels, groups = torch.tensor([0, 0]), torch.tensor([0, 1])
    pixel_values = torch.stack([torch.zeros(3, 2, 2), torch.ones(3, 2, 2)])

    def classify(images):
        shown.append(images)
        return Outputs(torch.zeros(len(images), 2))

    for _ in range(40):
        value = loss.of_batch(classify, {"pixel_values": pixel_values, "labels": labels, "group": groups})
        share = 1 - shown[-1][0, 0, 0, 0].item()  # of itself, in the image of the larger group
        assert torch.equal(shown[-1][1], pixel_values[1])  # the rare one is its own partner
        shares = torch.lerp(loss.shares[[1, 1]], loss.shares[groups], share)
        assert value.item() == pytest.approx(loss.corrected(torch.zeros(2, 2), labels, shares).item(), rel=1e-5)
        assert least <= share <= 1
    if not progress:
        return
    shares = torch.tensor([1 - images[0, 0, 0, 0] for images in shown])
    assert shares.max() <= 0.5 + 1e-6  # λ ~ U(0, 1/2)
    assert shares.mean() == pytest.approx(0.25, abs=0.1)


def test_groups_that_are_no_pairs_are_refused():
    with pytest.raises(ValueError, match="no such pairs"):
        LogitCorrection(torch.tensor([[2, 1], [1, 2]]))


# ---- invariant features ----------------------------------------------------------------------------------------------


def test_distance_to_centres_by_hand():
    loss = InvariantFeatures(torch.tensor([2, 2]), 2, penalty_weight=0.5, start=0.5)
    logits, labels = torch.zeros(3, 2), torch.tensor([0, 0, 1])
    features = torch.tensor([[0.0, 0], [2, 0], [5, 5]])
    rest = (None, features, torch.zeros(2, 2))
    assert loss(logits, labels, *rest).item() == pytest.approx(math.log(2))  # before `start`
    assert loss.centres.tolist() == [[1, 0], [5, 5]]
    loss.progress = 0.6
    assert loss(logits, labels, *rest).item() == pytest.approx(math.log(2) + 0.2 * 0.5 * (0.5 + 0.5 + 0) / 3)
    loss.progress = 0.8
    moved = (None, features + 2, torch.zeros(2, 2))
    value = loss(logits, labels, *moved).item()
    assert loss.centres.tolist() == [[2, 1], [6, 6]]  # half of the way
    squares = (0 + 1) + (4 + 1) + (1 + 1)  # to (2, 2), (4, 2) and (7, 7)
    assert value == pytest.approx(math.log(2) + 0.5 * squares / 2 / 3)
    loss.eval()
    loss(logits, labels, *rest)
    assert loss.centres.tolist() == [[2, 1], [6, 6]]


# ---- contexts --------------------------------------------------------------------------------------------------------


def test_a_context_is_where_the_gradient_is_not():
    gradient = torch.zeros(1, 3, 16, 16)
    gradient[:, 1, 4:6, 4:6] = -3.0
    mask = context_mask(gradient)
    assert mask.shape == (1, 1, 16, 16)
    assert mask[0, 0, 4:6, 4:6].max() < 0.3
    assert mask[0, 0, 10:, 10:].min() == 1
    assert context_mask(torch.zeros(2, 3, 5, 5)).eq(1).all()


def object_classifier(images):
    """Of two classes: by the mean of the middle alone, which is where its gradient is."""
    middle = images[:, :, 6:10, 6:10].mean((1, 2, 3))
    return Outputs(torch.stack([20 * middle, -20 * middle], 1))


def test_sure_images_lend_their_context_as_often_as_their_class_is():
    torch.manual_seed(0)
    loss = ContextShift(torch.tensor([100, 10]), bank_size=40)
    images = torch.rand(64, 3, 16, 16) + 1
    labels = torch.arange(64) % 2
    images[labels == 1] *= -1
    images[:8] *= -1  # these are told wrong
    value = loss.of_batch(object_classifier, {"pixel_values": images, "labels": labels})
    assert value.item() == pytest.approx(F.cross_entropy(object_classifier(images).logits, labels).item())
    kept, masks = loss.bank
    assert len(kept) == len(masks) <= 40
    assert (kept.mean((1, 2, 3)) > 0).float().mean() > 0.8  # of class 0, a tenth of the others
    assert all((image == images[8:]).flatten(1).all(1).any() for image in kept)
    assert masks[:, 0, 8, 8].max() < 0.1 < 0.9 < masks[:, 0, 0, 0].min()


def test_images_stand_in_a_borrowed_context_by_hand(monkeypatch):
    loss = ContextShift(torch.tensor([1, 1]), start=0.1)
    masks = torch.zeros(1, 1, 4, 4)
    masks[..., :2] = 1
    loss.bank = (torch.full((1, 3, 4, 4), 9.0), masks)
    images = torch.zeros(2, 3, 4, 4)
    assert loss.shifted(images) is images  # before `start`
    loss.progress = 0.1
    shifted = loss.shifted(images)
    assert not shifted[..., 2:].any()
    (value,) = shifted[..., :2].unique()
    assert 0 < value < 9
    monkeypatch.setattr(torch, "rand", lambda *size: torch.tensor(1.0))
    assert (loss.shifted(images)[..., :2] == 9).all()


def test_the_bank_is_saved_and_the_last_images_stay():
    torch.manual_seed(0)
    loss = ContextShift(torch.tensor([5, 5]), bank_size=3)
    for number in range(1, 5):
        images = torch.full((2, 3, 16, 16), float(number))
        loss.of_batch(object_classifier, {"pixel_values": images, "labels": torch.zeros(2, dtype=torch.long)})
    assert loss.bank[0][:, 0, 0, 0].tolist() == [3, 4, 4]
    other = ContextShift(torch.tensor([5, 5]), bank_size=3)
    other.load_state_dict(loss.state_dict())
    assert all(torch.equal(*parts) for parts in zip(loss.bank, other.bank, strict=True))
    other.load_state_dict(ContextShift(torch.tensor([5, 5])).state_dict())
    assert other.bank is None


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: CorrectNContrast(CELLS, contrastive_weight=2), r"contrastive_weight is 2"),
        (lambda: CorrectNContrast(CELLS, temperature=0), "temperature is 0"),
        (lambda: LogitCorrection(CELLS, ramp=0), "ramp is 0"),
        (lambda: InvariantFeatures(torch.ones(2), 3, penalty_weight=-1), "penalty_weight is -1"),
        (lambda: ContextShift(torch.ones(2), bank_size=0.5), "bank_size is 0.5"),
        (lambda: ContextShift(torch.ones(2), confidence=1.5), "confidence is 1.5"),
    ],
)
def test_bad_options_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()
