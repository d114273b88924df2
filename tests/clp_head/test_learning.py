"""CLP on features: what is learned, of what, and what is refused."""

import dataclasses
from dataclasses import replace

import pytest
import torch

from clp_hf.bilevel import implicit
from clp_hf.clp_head import CLPHeadSettings, best, clp_head
from clp_hf.features import CausalFeatures, FeatureSet, worst_and_average


@pytest.fixture(scope="module")
def data(spurious):
    """Training set, forty meta images with their attributes, test set."""
    train, validation, test, _ = spurious()
    groups = validation.groups
    rows = torch.cat([(groups == group).nonzero()[:10, 0] for group in range(4)])
    meta = validation[rows]
    return CausalFeatures(train), CausalFeatures(meta), meta.groups % 2, test


def accuracy(head, test):
    return worst_and_average(test.features @ head.weight.T + head.bias, test.labels, test.groups)[0]


def changed(images, **changes):
    return CausalFeatures(dataclasses.replace(images.images, **changes))


# ---- what is learned -------------------------------------------------------------------------------------------------


def test_evidence_of_the_attribute_lifts_the_worst_group(data):
    train, meta, attributes, test = data
    plain, with_evidence = clp_head(
        train, meta, [CLPHeadSettings(kinds, meta_weight=0.0) for kinds in ((), ("attribute",))], attributes
    )
    assert accuracy(with_evidence.head, test) > accuracy(plain.head, test) + 0.1
    assert with_evidence.agreement["attribute"] > 0.8
    assert with_evidence.strengths["attribute"] > 0
    assert plain.strengths == plain.agreement == {}


def test_the_strength_that_is_learned_has_the_least_meta_loss_of_all_that_were_tried(data):
    train, meta, attributes, _ = data
    settings = CLPHeadSettings(("attribute",), prior=0.0, steps=80, rate=0.1)
    (result,) = clp_head(train, meta, [settings], attributes)
    strengths = [entry["strength_attribute"] for entry in result.history]
    losses = [entry["meta_loss"] for entry in result.history]
    assert len(losses) == 81
    assert max(strengths) - min(strengths) > 0.3
    assert result.strengths["attribute"] == strengths[-1]
    assert result.meta_loss == losses[-1] <= min(losses) + 1e-4


def test_a_strong_prior_or_no_step_keeps_the_strength(data):
    train, meta, attributes, _ = data
    settings = [
        CLPHeadSettings(("attribute",), steps=0),
        CLPHeadSettings(("attribute",), prior=1e4, steps=10, rate=1e-3),
    ]
    kept, held = clp_head(train, meta, settings, attributes)
    assert len(kept.history) == 1
    assert held.strengths["attribute"] == pytest.approx(kept.strengths["attribute"], abs=0.01)


def test_units_and_origin_of_the_features_do_not_matter(data):
    """The head is for features as they are: folded back, its logits are those of standardised ones."""
    train, meta, attributes, test = data
    settings = [CLPHeadSettings(("attribute",), steps=2)]
    moved = [changed(part, features=3 * part.images.features + 20) for part in (train, meta)]
    (one,), (other,) = (clp_head(*pair, settings, attributes) for pair in ((train, meta), moved))
    torch.testing.assert_close(
        (3 * test.features + 20) @ other.head.weight.T + other.head.bias,
        test.features @ one.head.weight.T + one.head.bias,
        atol=0.02,
        rtol=0.02,
    )


def test_no_meta_image_is_judged_by_what_it_taught(data):
    """Features by which every image can be told learn any labels by heart, and say nothing of an image not seen."""
    train, meta, _, _ = data
    generator = torch.Generator().manual_seed(0)
    train, meta = (changed(part, features=torch.randn(len(part), 300, generator=generator)) for part in (train, meta))
    (result,) = clp_head(train, meta, [CLPHeadSettings((), meta_weight=10.0)])
    logits = meta.images.features @ result.head.weight.T + result.head.bias
    assert torch.nn.functional.cross_entropy(logits, meta.labels) < 0.1
    assert result.meta_loss > 0.6


def test_validation_chooses_where_there_is_one_and_else_the_meta_loss(data):
    train, meta, attributes, test = data
    settings = [CLPHeadSettings(("attribute",), ridge=ridge, steps=1) for ridge in (10.0, 1e-3)]
    by_meta = clp_head(train, meta, settings, attributes)
    assert [result.score for result in by_meta] == [(-result.meta_loss,) for result in by_meta]
    by_validation = clp_head(train, meta, settings, attributes, test)
    assert best(by_validation).score == max(
        worst_and_average(test.features @ r.head.weight.T + r.head.bias, test.labels, test.groups)
        for r in by_validation
    )


def test_swapped_images_are_trained_on(data):
    """Where the attribute of the swapped ones is another one's, the head turns from it."""
    train, meta, _, test = data
    features = train.images.features
    swapped = features.clone()
    swapped[:, 2:4] = features[torch.randperm(len(features), generator=torch.Generator().manual_seed(0)), 2:4]
    usable = torch.ones(len(features), dtype=torch.bool)
    settings = [CLPHeadSettings((), meta_weight=0.0)]
    (plain,), (with_swapped,) = (
        clp_head(part, meta, settings)
        for part in (train, CausalFeatures(train.images, usable, features, swapped[None]))
    )
    assert accuracy(with_swapped.head, test) > accuracy(plain.head, test) + 0.1


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ridge": 0.0}, "ridge is 0.0; expected a number above 0: without it classes that can be separated"),
        ({"ridge": -1.0}, "ridge is -1.0"),
        ({"ridge": float("nan")}, "ridge is nan"),
        ({"meta_weight": float("nan")}, "meta_weight is nan; expected a number, 0 or more"),
        ({"prior": -1}, "prior is -1"),
        ({"folds": 1}, "folds is 1; expected 2 or more"),
        ({"evidence": ("backgrounds",)}, "no evidence backgrounds; choose out of background, attribute, bias"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        CLPHeadSettings(**settings)


def test_evidence_without_what_it_needs(data):
    train, meta, _, _ = data
    meta = replace(meta, images=replace(meta.images, groups=None))
    for kind, message in (
        ("background", "needs masks of the training images; with these data: bias"),
        ("attribute", "needs the group of every meta image; with these data: bias"),
    ):
        with pytest.raises(ValueError, match=message):
            clp_head(train, meta, [CLPHeadSettings((kind,))])


def test_a_class_of_one_image_or_none(data):
    train, meta, _, _ = data
    first = (train.labels == 1).nonzero()[0, 0]
    lonely = (train.labels == 0) | (torch.arange(len(train)) == first)
    with pytest.raises(ValueError, match="of the training set class 1 has 1: add some, or leave the class out"):
        clp_head(train[lonely], meta, [CLPHeadSettings(())])
    with pytest.raises(ValueError, match="of the meta set class 1 has none"):
        clp_head(train, meta[meta.labels == 0], [CLPHeadSettings(())])


def test_a_class_without_a_usable_mask(data):
    train, meta, _, _ = data
    masked = CausalFeatures(train.images, train.labels == 0, train.images.features, None)
    with pytest.raises(ValueError, match="usable mask class 1 has none: mend the masks, or choose another evidence"):
        clp_head(masked, meta, [CLPHeadSettings(("background",))])


@pytest.mark.parametrize("attributes", [torch.zeros(40).long(), (torch.arange(40) == 0).long()])
def test_an_attribute_of_one_value_or_a_value_of_one_image(data, attributes):
    train, meta, _, _ = data
    with pytest.raises(ValueError, match="images of the attribute's values; expected two values or more, and two"):
        clp_head(train, meta, [CLPHeadSettings(("attribute",))], attributes)


def test_features_of_another_backbone(data):
    train, meta, _, _ = data
    with pytest.raises(ValueError, match=r"of one backbone; their \(classes, dimensions\) are \(2, 6\) and \(2, 5\)"):
        clp_head(train, changed(meta, features=meta.images.features[:, :5]), [CLPHeadSettings(())])


def test_more_folds_than_images_of_a_class(data):
    train, meta, _, _ = data
    few = meta[torch.tensor([0, 1, 38, 39])]
    (result,) = clp_head(train, few, [CLPHeadSettings(("bias",), folds=7, steps=1)])
    assert torch.isfinite(result.head.weight).all()
    assert result.meta_loss > 0


def test_features_that_do_not_vary(data):
    train, meta, _, _ = data
    with pytest.raises(ValueError, match="All 800 training images have the same features"):
        clp_head(changed(train, features=torch.ones(800, 6)), meta, [CLPHeadSettings(())])


def test_a_head_that_has_not_converged_is_told_of(data, monkeypatch):
    train, meta, _, _ = data
    monkeypatch.setattr(implicit, "NEWTON_STEPS", 1)
    with pytest.warns(UserWarning, match="have not converged after 1 Newton steps"):
        clp_head(train, meta, [CLPHeadSettings((), ridge=1e-6)])


def test_features_that_are_not_finite(data):
    train = data[0].images
    features = train.features.clone()
    features[3, 0] = torch.nan
    with pytest.raises(ValueError, match="not finite, the first that of image 3"):
        CausalFeatures(FeatureSet(features, train.logits, train.labels))
