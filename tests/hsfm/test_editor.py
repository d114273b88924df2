"""HSFM runs: against a plain autograd implementation, batched as alone, and what it does with bad input."""

import dataclasses
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from clp_hf.hsfm import FeatureSet, Head, HSFMSettings, best, hsfm

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
from hsfm_speed import reference

SETTING = HSFMSettings(support_size=6, inner_steps=3, inner_rate=0.05, edit_rate=0.1, edits_per_epoch=4, hard_size=5)
SETTING = dataclasses.replace(SETTING, epochs=6)


def birds(n, correlation, classes=2, seed=0, groups=True, width=8):
    """Features with a weak direction for the class and a strong one for the place."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    places = torch.where(torch.rand(n, generator=generator) < correlation, labels, (labels + 1) % classes)
    features = 0.5 * torch.randn(n, width, generator=generator, dtype=torch.float64)
    features[:, :classes] += F.one_hot(labels, classes)
    features[:, classes : 2 * classes] += 2 * F.one_hot(places, classes)
    weight = torch.zeros(classes, width, dtype=torch.float64)
    weight[:, :classes], weight[:, classes : 2 * classes] = torch.eye(classes), 2 * torch.eye(classes)
    head = Head(weight, torch.zeros(classes, dtype=torch.float64))
    feature_set = FeatureSet(features, features @ weight.T, labels, classes * labels + places if groups else None)
    return feature_set, head


@pytest.fixture
def data():
    train, head = birds(80, 0.95)
    validation, _ = birds(60, 0.5, seed=1)
    return train, validation, head


def test_equals_the_autograd_implementation(data):
    (result,) = hsfm(*data, [SETTING], folds=1)
    states = list(reference(*data, SETTING))
    epoch = result.epochs[0]
    assert epoch > 0
    head, support = states[epoch - 1]
    torch.testing.assert_close((result.head.weight, result.head.bias), tuple(head), rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(result.edited, support, rtol=1e-9, atol=1e-11)


def test_repairs_a_head_that_trusts_the_place(data):
    train, validation, head = data
    test, _ = birds(400, 0.5, seed=2)
    setting = dataclasses.replace(SETTING, epochs=40)

    def worst_group(head):
        correct = (test.features @ head.weight.T + head.bias).argmax(1) == test.labels
        return min(correct[test.groups == group].float().mean().item() for group in range(4))

    (result,) = hsfm(train, validation, head, [setting])
    assert worst_group(head) < 0.2
    assert worst_group(result.head) > 0.5


@pytest.mark.parametrize("folds", [1, 2])
def test_batched_runs_equal_runs_alone(data, folds):
    settings = [
        SETTING,
        dataclasses.replace(SETTING, seed=1, support_size=4, inner_steps=1),
        dataclasses.replace(SETTING, edits_per_epoch=1, hard_size=2, epochs=3, edit_rate=0.01),
    ]
    together = hsfm(*data, settings, folds=folds)
    for setting, batched in zip(settings, together, strict=True):
        (alone,) = hsfm(*data, [setting], folds=folds)
        assert batched.settings == alone.settings == setting
        assert batched.epochs == alone.epochs
        assert batched.score == alone.score
        assert len(batched.history) == setting.epochs + 1
        torch.testing.assert_close(batched.head.weight, alone.head.weight, rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(batched.edited, alone.edited, rtol=1e-9, atol=1e-11)
    assert best(together).score == max(result.score for result in together)


@pytest.mark.parametrize("selection", ["worst_class", "hard_loss"])
def test_selection_without_groups(selection):
    train, head = birds(80, 0.95, classes=3, groups=False)
    validation, _ = birds(60, 0.5, classes=3, seed=1, groups=False)
    (result,) = hsfm(train, validation, head, [SETTING], selection=selection, folds=1)
    scores = [entry["score"] for entry in result.history]
    assert result.score == max(scores)
    assert selection.replace("_", " ") in result.rule
    if selection == "hard_loss":
        assert result.score == -min(entry["hard_loss"] for entry in result.history)


def test_the_given_head_is_kept_where_nothing_is_better(data):
    train, validation, _ = data
    good = Head(torch.tensor([[1.0, -1, 0, 0], [-1, 1, 0, 0]]).double().repeat(1, 2), torch.zeros(2).double())
    setting = dataclasses.replace(SETTING, inner_rate=1.0, edit_rate=5.0, epochs=1)
    (result,) = hsfm(train, validation, good, [setting], selection="worst_class", folds=1)
    if result.epochs == (0,):
        torch.testing.assert_close(result.head.weight, good.weight)
    assert result.score >= result.history[0]["score"]


def test_divergence_stops_and_keeps_the_best_head(data):
    setting = dataclasses.replace(SETTING, edit_rate=1e150, inner_rate=1e150)
    with pytest.warns(UserWarning, match=r"diverged in epoch 1 .* Lower edit_rate or inner_rate"):
        diverged, fine = hsfm(*data, [setting, SETTING], folds=1)
    assert diverged.diverged == (1,)
    assert torch.isfinite(diverged.head.weight).all()
    assert fine.diverged == (None,)


def test_one_feature():
    train, _ = birds(40, 0.9, width=4)
    validation, _ = birds(40, 0.5, seed=1, width=4)
    head = Head(torch.tensor([[0.1], [-0.1]]).double(), torch.zeros(2).double())
    narrow = [
        FeatureSet(data.features[:, :1], data.features[:, :1] @ head.weight.T, data.labels, data.groups)
        for data in (train, validation)
    ]
    (result,) = hsfm(*narrow, head, [SETTING])
    assert torch.isfinite(result.head.weight).all()


def test_small_classes_give_all_they_have(data):
    train, validation, head = data
    with pytest.warns(UserWarning, match="support set asks for 50 .* class 0 has 40"):
        (result,) = hsfm(train, validation, head, [dataclasses.replace(SETTING, support_size=50)])
    assert len(result.support_indices) == 80
    with pytest.warns(UserWarning, match="hard set asks for 99 .* class 0 has 30"):
        hsfm(train, validation, head, [dataclasses.replace(SETTING, hard_size=99)], folds=1)


def test_bad_input_is_refused(data):
    train, validation, head = data
    with pytest.raises(ValueError, match=r"edit_rate.*must be positive|must be positive.*edit_rate"):
        dataclasses.replace(SETTING, edit_rate=0.0)
    with pytest.raises(ValueError, match="validation images of all 2 classes; class 1 has none"):
        hsfm(train, validation[validation.labels == 0], head, [SETTING])
    with pytest.raises(ValueError, match="the head is for 2 classes and 7 features".replace("the", "The", 1)):
        hsfm(train, validation, Head(head.weight[:, :7], head.bias), [SETTING])
    with pytest.raises(ValueError, match="choose one of worst_group, worst_class, hard_loss"):
        hsfm(train, validation, head, [SETTING], selection="best")
    ungrouped = FeatureSet(validation.features, validation.logits, validation.labels)
    with pytest.raises(ValueError, match="has no groups; use 'worst_class'"):
        hsfm(train, ungrouped, head, [SETTING], selection="worst_group")
