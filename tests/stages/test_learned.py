"""What is learned between two stages, by hand, by brute force, or where it is known."""

from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from clp_hf.features import FeatureSet
from clp_hf.losses import GoldLossCorrection, build_loss
from clp_hf.stages import Reference, eiil, george, glc, jtt, ssa
from clp_hf.stages.eiil import infer_environments
from clp_hf.stages.george import clusters
from clp_hf.stages.glc import corruption_matrix
from clp_hf.stages.ssa import pseudo_labels

NAMES = ("cat", "dog", "owl")


def reference(logits, labels, features=None, meta=None, groups=None):
    logits, labels = torch.as_tensor(logits).float(), torch.as_tensor(labels)
    features = logits if features is None else features
    return Reference(FeatureSet(features, logits, labels), meta, NAMES[: logits.shape[1]], groups, seed=0)


# ---- JTT -------------------------------------------------------------------------------------------------------------


def test_what_the_first_network_gets_wrong_is_drawn_more():
    learned = jtt(reference([[2, 1], [1, 2], [2, 1]], [0, 0, 1]), upweight=7)
    assert learned.weight.tolist() == [1, 7, 7]
    assert learned.told.startswith("The first network was wrong about 2 of 3")
    assert (learned.group, learned.corruption) == (None, None)
    with pytest.raises(ValueError, match="right about all 2 training images"):
        jtt(reference([[2, 1], [1, 2]], [0, 1]))
    with pytest.raises(ValueError, match=r"upweight is 0.5; expected 1 or more"):
        jtt(reference([[1, 2]], [0]), upweight=0.5)


# ---- EIIL ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [2, 3])
def test_no_other_split_has_a_larger_irm_penalty(classes):
    """Of all splits into two, by brute force, the derivatives being autograd's."""
    generator = torch.Generator().manual_seed(classes)
    logits = torch.randn(9, classes, generator=generator)
    labels = torch.randint(0, classes, (9,), generator=generator)
    scale = torch.ones(9, requires_grad=True)
    (derivatives,) = torch.autograd.grad(F.cross_entropy(scale[:, None] * logits, labels, reduction="sum"), scale)
    splits = torch.tensor(list(product((0.0, 1.0), repeat=9)))
    penalties = (splits @ derivatives) ** 2 + ((1 - splits) @ derivatives) ** 2
    found = infer_environments(logits, labels).float()
    assert (found @ derivatives) ** 2 + ((1 - found) @ derivatives) ** 2 == pytest.approx(penalties.max().item())
    assert 0 < found.sum() < 9
    if classes == 2:
        assert found.bool().equal(logits.argmax(1) != labels)


def test_environments_and_classes_are_the_groups():
    learned = eiil(reference([[2, 1], [1, 2], [2, 1], [1, 2]], [0, 0, 1, 1]))
    assert learned.group.tolist() == [0, 1, 3, 2]
    assert "cat 1 and 1, dog 1 and 1" in learned.told
    with pytest.raises(ValueError, match="one environment only in every class"):
        eiil(reference([[2, 1], [1, 2]], [0, 1]))


# ---- GLC -------------------------------------------------------------------------------------------------------------


def test_corruption_matrix_by_hand():
    logits = torch.tensor([[0.8, 0.2], [0.6, 0.4], [0.1, 0.9]]).log()
    labels = torch.tensor([0, 0, 1])
    torch.testing.assert_close(corruption_matrix(logits, labels, 2), torch.tensor([[0.7, 0.3], [0.1, 0.9]]))
    with pytest.raises(ValueError, match=r"none of the classes \[0\]"):
        corruption_matrix(logits[2:], labels[2:], 2)
    meta = FeatureSet(logits, logits, labels)
    learned = glc(reference(logits, labels, meta=meta))
    assert learned.corruption.shape == (2, 2)
    assert "80 %" in learned.told


def test_corrected_loss_by_hand():
    loss = GoldLossCorrection(torch.tensor([[0.7, 0.3], [0.1, 0.9]]))
    logits, labels = torch.tensor([[0.6, 0.4], [0.6, 0.4]]).log(), torch.tensor([1, 1])
    corrected, own = -np.log(0.6 * 0.3 + 0.4 * 0.9), -np.log(0.4)
    assert loss(logits, labels).item() == pytest.approx(corrected)
    assert loss(logits, labels, torch.tensor([0, 1])).item() == pytest.approx((corrected + own) / 2)
    clean = GoldLossCorrection(torch.eye(3))
    logits, labels = torch.randn(5, 3), torch.tensor([0, 1, 2, 1, 0])
    torch.testing.assert_close(clean(logits, labels), F.cross_entropy(logits, labels))
    with pytest.raises(ValueError, match="every row adds up to 1"):
        GoldLossCorrection(torch.ones(2, 2))
    with pytest.raises(ValueError, match="estimated in a first stage: --method glc"):
        build_loss("gold_loss_correction", labels, 3)


# ---- GEORGE ----------------------------------------------------------------------------------------------------------


def blobs(centres, size, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.cat([0.1 * torch.randn(size, 3, generator=generator) + torch.tensor(centre) for centre in centres])


def test_clusters_of_each_class_are_the_groups():
    features = torch.cat([blobs([[0.0, 0, 0], [3, 0, 0]], 20), blobs([[0.0, 0, 0], [0, 2, 0], [4, 4, 0]], 20, 1)])
    labels = torch.tensor([0] * 40 + [1] * 60)
    learned = george(reference(torch.zeros(100, 2), labels, features))
    found = learned.group.view(5, 20)
    assert (found == found[:, :1]).all()
    assert sorted(found[:2, 0].tolist()) == [0, 1]
    assert sorted(found[2:, 0].tolist()) == [2, 3, 4]
    with pytest.raises(ValueError, match="one cluster only in every class"):
        george(reference(torch.zeros(4, 2), [0, 0, 1, 1], torch.eye(4)))
    with pytest.raises(ValueError, match="most_clusters is 1 and"):
        george(reference(torch.zeros(4, 2), [0, 0, 1, 1]), most_clusters=1)


def test_few_images_are_no_cluster_of_their_own():
    features = torch.cat([blobs([[0.0, 0, 0], [3, 0, 0]], 20), torch.tensor([[3.0, 9, 0]])]).numpy()
    found = clusters(features, 4, 10, seed=0)
    assert sorted(np.bincount(found)) == [20, 21]
    assert not clusters(features[:3], 4, 10, seed=0).any()


# ---- SSA -------------------------------------------------------------------------------------------------------------


def test_no_group_gets_more_pseudo_labels_than_the_rarest():
    sure = torch.tensor([0.99, 0.97, 0.96, 0.98, 0.7])
    probabilities = torch.stack([sure, 1 - sure], 1)
    probabilities[3:] = probabilities[3:].flip(1)
    assert pseudo_labels(probabilities, 0.95).tolist() == [True, False, False, True, False]
    assert not pseudo_labels(probabilities[:3], 0.95).any()  # of the other group none is sure


def test_groups_are_spread_from_few_images():
    """The attribute is the sign of the second feature; training has almost none against the class."""

    def draw(number, agrees, seed):
        generator = torch.Generator().manual_seed(seed)
        labels = torch.arange(number) % 2
        attribute = torch.where(torch.rand(number, generator=generator) < agrees, labels, 1 - labels)
        noise = 0.4 * torch.randn(number, 4, generator=generator)
        noise[:, 0] += 2 * labels - 1
        noise[:, 1] += 2 * attribute - 1
        return FeatureSet(noise, torch.zeros(number, 2), labels, 2 * labels + attribute)

    train, meta = draw(300, 0.9, 0), draw(40, 0.5, 1)
    known = Reference(FeatureSet(train.features, train.logits, train.labels), meta, NAMES[:2], list("abcd"), seed=0)
    learned = ssa(known)
    assert (learned.group // 2).equal(train.labels)
    assert (learned.group == train.groups).float().mean() > 0.95
    assert (learned.group == train.groups)[train.groups % 3 != 0].float().mean() > 0.9  # of the rare ones
    with pytest.raises(ValueError, match="the meta set has none of dog"):
        ssa(Reference(known.train, meta[meta.labels == 0], NAMES[:2], list("abcd"), seed=0))
    with pytest.raises(ValueError, match="threshold 2"):
        ssa(known, threshold=2)
