"""What a first network's mistakes and doubts are taken for, by hand."""

import pytest
import torch

from clp_hf.features import FeatureSet
from clp_hf.losses.environments import attributes_per_class
from clp_hf.stages import Reference, cnc, ifl, logit_correction
from clp_hf.stages.ifl import class_weights

NAMES = ("cat", "dog", "owl")


def reference(logits, labels):
    logits, labels = torch.as_tensor(logits).float(), torch.as_tensor(labels)
    return Reference(FeatureSet(logits, logits, labels), None, NAMES[: logits.shape[1]], None, seed=0)


@pytest.mark.parametrize("stage", [cnc, logit_correction])
def test_groups_are_of_class_and_prediction(stage):
    logits = torch.eye(3)[[0, 1, 1, 0, 2]]
    learned = stage(reference(logits, [0, 0, 1, 1, 2]))
    assert learned.group.tolist() == [0, 1, 4, 3, 8]
    assert "2 of 5 training images (cat 1, dog 1, owl 0)" in learned.told
    cells = torch.zeros(3, 9).index_put_((torch.tensor([0, 0, 1, 1, 2]), learned.group), torch.ones(5))
    assert attributes_per_class(cells) == 3
    with pytest.raises(ValueError, match=r"right about all 3 training images\. Stop it earlier"):
        stage(reference(torch.eye(3), [0, 1, 2]))


def test_doubtful_images_are_drawn_as_often_as_is_asked():
    generator = torch.Generator().manual_seed(0)
    confidence = torch.rand(200, generator=generator).double()
    weights = class_weights(confidence, 4.0)
    assert weights.sum().item() == pytest.approx(1)
    assert (weights.argsort() == confidence.argsort(descending=True)).all()
    plain = class_weights(confidence, 1.0)  # β is 1 or more: the doubts themselves
    doubt = (confidence.max() - confidence) / (confidence.max() - confidence.min()) + 1e-5
    torch.testing.assert_close(plain, doubt / doubt.sum())
    ordered = weights.sort().values
    assert (ordered[160:].mean() / ordered[:160].mean()).item() == pytest.approx(4, rel=0.5)
    assert (ordered[160:].mean() / ordered[:160].mean()) > (plain.sort().values[160:].mean() / plain[:160].mean())
    assert class_weights(confidence[:4], 4.0).tolist() == [0.25] * 4  # too few to be told apart
    assert class_weights(torch.full((8,), 0.5), 4.0).tolist() == [0.125] * 8


def test_classes_are_equally_frequent_in_the_second_environment():
    logits = torch.randn(40, 2, generator=torch.Generator().manual_seed(1))
    labels = (torch.arange(40) < 30).long()
    learned = ifl(reference(logits, labels))
    sums = torch.zeros(2).index_add_(0, labels, learned.weight)
    torch.testing.assert_close(sums, torch.ones(2))
    with pytest.raises(ValueError, match=r"scale is 0\.5"):
        ifl(reference(logits, labels), scale=0.5)
