"""V tells the attribute apart from the class, and B what it says about the class."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from clp_hf.perturbation.evidence import AttributeEvidence
from clp_hf.perturbation.evidence.attribute import MOST_META_IMAGES, attributes_of
from clp_hf.perturbation.evidence.tell_apart import class_given_attribute


def drawn(labels, attributes, seed):
    """Features of which one says the class and a stronger one the attribute."""
    features = 3 + torch.randn(len(labels), 12, generator=torch.Generator().manual_seed(seed))
    features[:, 0] += 3 * labels
    features[:, 1] += 6 * attributes
    return features


class Scene:
    """Two classes and two attribute values that agree in 95 % of the training images."""

    def __init__(self, meta_each=10):
        self.meta_labels = torch.tensor([0, 0, 1, 1] * meta_each)
        self.meta_attributes = torch.tensor([0, 1, 0, 1] * meta_each)
        self.meta_features = drawn(self.meta_labels, self.meta_attributes, 1)
        self.classifier = SimpleNamespace(module=nn.Identity(), features=lambda images: images)
        self.evidence = AttributeEvidence(
            lambda rows: self.meta_features[rows], self.meta_labels, self.meta_attributes, num_labels=2, num_values=2
        )
        self.generator = torch.Generator().manual_seed(0)

    def batch(self, size=32):
        labels = torch.randint(2, (size,), generator=self.generator)
        attributes = torch.where(torch.rand(size, generator=self.generator) < 0.95, labels, 1 - labels)
        return labels, attributes, drawn(labels, attributes, int(torch.randint(2**40, (), generator=self.generator)))

    def step(self, refit=False, **columns):
        labels, attributes, features = self.batch()
        u_z = self.evidence({"labels": labels, **columns}, features, self.classifier)
        if refit:
            self.evidence.refit(self.classifier)
        return labels, attributes, u_z


def test_it_says_the_class_that_goes_with_the_attribute_whatever_the_label():
    scene = Scene()
    for step in range(12):
        labels, attributes, u_z = scene.step(refit=step % 4 == 3)
        torch.testing.assert_close(u_z.sum(-1), torch.zeros(32), atol=1e-5, rtol=0)
        assert (u_z.argmax(-1) == attributes).float().mean() > 0.9
    contradicts = labels != attributes
    assert contradicts.any()
    assert (u_z.argmax(-1) != labels)[contradicts].float().mean() > 0.5


def test_a_batch_is_predicted_by_heads_that_have_not_seen_it():
    scene = Scene()
    scene.step(refit=True)
    heads, given = scene.evidence.heads, scene.evidence.given
    labels, _, features = scene.batch()
    found = scene.evidence({"labels": labels}, features, scene.classifier)
    assert torch.equal(found, scene.evidence({"labels": 1 - labels}, features, scene.classifier))
    assert scene.evidence.heads is heads
    assert scene.evidence.given is given
    scene.evidence.refit(scene.classifier)
    assert not torch.equal(scene.evidence.heads, heads)


def test_it_does_not_take_the_class_for_the_attribute():
    """As a probe of the attribute would that is trained on the biased images; U sees the class instead."""
    scene = Scene()
    for _ in range(30):
        scene.step()
    scene.evidence.refit(scene.classifier)
    head_of_class, head_of_attribute = (head[1, :2] - head[0, :2] for head in scene.evidence.heads.split(2))
    assert head_of_attribute[1] > 4 * head_of_attribute[0].abs()
    assert head_of_class[0] > head_of_class[1].abs()


def test_what_is_kept_comes_back():
    scene = Scene()
    scene.step(refit=True)
    bring_back = scene.evidence.keep()
    heads, remembered = scene.evidence.heads, scene.evidence.memory.read()
    scene.step(refit=True)
    bring_back()
    assert torch.equal(scene.evidence.heads, heads)
    assert all(torch.equal(column, remembered[name]) for name, column in scene.evidence.memory.read().items())


def test_features_that_are_not_finite_do_not_get_into_the_heads():
    scene = Scene()
    labels, _, features = scene.batch()
    features[3] = torch.nan
    scene.evidence({"labels": labels}, features, scene.classifier)
    scene.evidence.refit(scene.classifier)
    assert torch.isfinite(scene.evidence.heads).all()
    kept, scene.meta_features = scene.evidence.heads, scene.meta_features * torch.nan
    scene.evidence.refit(scene.classifier)
    assert torch.equal(scene.evidence.heads, kept)


def test_of_a_large_meta_set_some_images_of_every_value_are_taken():
    attributes = torch.tensor([0] * 500 + [1] * 20 + [2] * 300)
    evidence = AttributeEvidence(lambda rows: None, torch.zeros_like(attributes), attributes, 2, 3)
    assert len(evidence.rows) == MOST_META_IMAGES
    assert torch.bincount(attributes[evidence.rows]).tolist() == [118, 20, 118]


@pytest.mark.parametrize(
    ("labels", "groups", "found"),
    [
        ([0, 0, 1, 1], [0, 1, 2, 3], ([0, 1, 0, 1], 2)),
        ([0, 0, 1, 2], [0, 2, 4, 8], ([0, 2, 1, 2], 3)),
        ([0, 1, 2], [0, 1, 2], ([0, 0, 0], 1)),
        ([0, 0, 1, 1], [0, 1, 0, 1], None),
        ([0, 1, 1], [0, 2, 5], None),
    ],
)
def test_attributes_are_read_from_pairs(labels, groups, found):
    result = attributes_of(torch.tensor(labels), torch.tensor(groups))
    assert found == (result and (result[0].tolist(), result[1]))


def test_a_class_that_has_not_been_seen_is_no_less_likely_with_any_attribute():
    labels = torch.tensor([0] * 50 + [1] * 50)
    given = class_given_attribute(torch.eye(2)[labels], labels, num_classes=3)
    assert given[2].std() < 1e-6
    assert (given[0] - given[1])[0] > 0.9 > -0.9 > (given[0] - given[1])[1]
