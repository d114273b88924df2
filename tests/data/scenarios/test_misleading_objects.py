"""Objects that lie by their colour or surface: how often, what is changed, and what is not."""

import numpy as np
import pytest
import torch
from datasets import DatasetDict
from torchvision.transforms.functional import pil_to_tensor

from clp_hf.causal.appearance import YIQ
from clp_hf.data import embedded_birds, load_classification_dataset, misleading_objects
from clp_hf.data.groups import counts


@pytest.fixture(scope="module")
def birds():
    return embedded_birds(40, 12, 12, image_size=32)


@pytest.fixture(scope="module")
def coloured(birds):
    return misleading_objects(birds, correlation=0.9)


def pixels(split, column="image", mode="RGB"):
    return torch.stack([pil_to_tensor(image.convert(mode)) for image in split[column]]).float() / 255


def test_train_is_correlated_and_evaluation_balanced(coloured):
    names = ["landbird_hue_0", "landbird_hue_180", "waterbird_hue_0", "waterbird_hue_180"]
    assert list(counts(coloured["train"]).items()) == list(zip(names, [18, 2, 2, 18], strict=True))
    assert list(counts(coloured["validation"]).values()) == list(counts(coloured["test"]).values()) == [3] * 4


@pytest.mark.parametrize("kind", ["colour", "texture"])
def test_the_object_is_changed_and_the_background_is_not(birds, kind):
    changed = misleading_objects(birds, kind)["train"]
    before, after = pixels(birds["train"]), pixels(changed)
    inside = (pixels(changed, "mask", "L") >= 0.5).expand_as(before)
    assert torch.equal(after[~inside], before[~inside])
    assert ((after - before).abs() > 0.02)[inside].float().mean() > 0.5
    assert changed["label"] == birds["train"]["label"]
    assert np.array_equal(changed["group"], 2 * np.array(changed["label"]) + changed["attribute"])


def test_the_attribute_is_the_hue_of_the_object(coloured):
    split = coloured["test"]
    mask = (pixels(split, "mask", "L") >= 0.5).float()
    axis = torch.einsum("j,njhw->nhw", torch.tensor(YIQ[1]), pixels(split))[:, None]  # red to cyan
    mean = (axis * mask).sum((1, 2, 3)) / mask.sum((1, 2, 3))
    assert ((mean < 0).long() == torch.tensor(split["attribute"])).all()
    assert mean.abs().min() > 0.08


def test_the_loader_takes_it_and_the_seed_decides_it(birds, coloured):
    loaded = load_classification_dataset(coloured, attribute_column="attribute")
    assert loaded["train"].features["group"].names == list(counts(coloured["train"]))
    again, other = (misleading_objects(birds, correlation=0.9, seed=seed)["train"]["attribute"] for seed in (0, 1))
    assert again[:] == coloured["train"]["attribute"][:] != other[:]


def test_bad_input_is_named(birds):
    for settings, message in (
        ({"kind": "smell"}, "kind is 'smell'; choose one of colour, texture"),
        ({"correlation": 1.5}, r"in \[0, 1\]; found 1.5 and 0.5"),
    ):
        with pytest.raises(ValueError, match=message):
            misleading_objects(birds, **settings)
    without = DatasetDict({name: split.remove_columns("mask") for name, split in birds.items()})
    with pytest.raises(ValueError, match=r"lacks the columns \['mask'\]"):
        misleading_objects(without)
