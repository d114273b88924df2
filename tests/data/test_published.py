"""A data set that is not the published one is told; validation and test may be the same images."""

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features
from datasets import Image as ImageFeature
from PIL import Image

from clp_hf.data import load_classification_dataset
from clp_hf.data.meta_set import meta_indices
from clp_hf.data.published import CIFAR, IMAGENET_LT, WATERBIRDS, not_as_published


def sized(column, **splits):
    """Splits whose classes, or groups, have these numbers of images."""

    def split(sizes):
        values = np.repeat(np.arange(len(sizes)), sizes)
        columns = {column: values, **({"label": values % 2} if column == "group" else {})}
        names = {column: len(sizes), **({"label": 2} if column == "group" else {})}
        features = {name: ClassLabel(names=[str(number) for number in range(count)]) for name, count in names.items()}
        return Dataset.from_dict(columns, features=Features(features))

    return DatasetDict({name: split(sizes) for name, sizes in splits.items()})


BIRDS = {"train": (3498, 184, 56, 1057), "validation": (467, 466, 133, 133), "test": (2255, 2255, 642, 642)}


def test_waterbirds():
    assert not_as_published(sized("group", **BIRDS), [WATERBIRDS]) is None
    assert sum(BIRDS["train"]) == 4795
    told = not_as_published(sized("group", **BIRDS | {"train": (3498, 184, 57, 1057)}), [WATERBIRDS])
    assert told == (
        "Not Waterbirds as published (Sagawa et al. 2020): the train split has 4,796 images (3,498, 184, 57, 1,057), "
        "published 4,795 images (3,498, 184, 56, 1,057). Published figures are of other images."
    )
    without = DatasetDict({name: split.remove_columns("group") for name, split in sized("group", **BIRDS).items()})
    assert "the train split has 4,795 images without groups, published" in not_as_published(without, [WATERBIRDS])
    found = sized("group", train=BIRDS["train"], validation=BIRDS["validation"])
    assert "there is no test split, published 5,794 images (2,255" in not_as_published(found, [WATERBIRDS])
    assert not_as_published(found, []) is None


def test_cifar_by_its_classes():
    assert not_as_published(sized("label", train=(500,) * 100, test=(100,) * 100), CIFAR) is None
    told = not_as_published(sized("label", train=(450,) * 100, test=(100,) * 100), CIFAR)
    assert "Not CIFAR-100 as published" in told
    assert "has 45,000 images (100 classes of 450), published 50,000 images (100 classes of 500)." in told
    assert "Not CIFAR-10 as published" in not_as_published(sized("label", train=(5, 5), test=(1, 1)), CIFAR)


def test_a_summary_of_many_classes():
    sizes = np.full(1000, 115)
    sizes[0], sizes[1] = 1280, 5
    sizes[2:] += (115_846 - sizes.sum()) // 998
    sizes[2 : 2 + 115_846 - sizes.sum()] += 1
    splits = {"train": sizes, "validation": (20,) * 1000, "test": (50,) * 1000}
    assert not_as_published(sized("label", **splits), [IMAGENET_LT]) is None
    sizes[0] -= 1
    told = not_as_published(sized("label", **splits), [IMAGENET_LT])
    assert (
        "115,845 images (1,000 classes of 5 to 1,279), published 115,846 images (1,000 classes of 5 to 1,280)" in told
    )


@pytest.mark.parametrize("asked", [{"validation_fraction": 0}, {"validation_split": "test"}])
def test_the_test_split_as_validation(asked):
    features = Features(image=ImageFeature(), label=ClassLabel(names=["ant", "bee"]))
    image = Image.new("RGB", (4, 4))
    data = DatasetDict(
        {
            name: Dataset.from_dict({"image": [image] * size, "label": [0, 1] * (size // 2)}, features=features)
            for name, size in (("train", 12), ("test", 4))
        }
    )
    splits = load_classification_dataset(data, **asked)
    assert (len(splits["train"]), len(splits["test"])) == (12, 4)
    assert splits["validation"] is splits["test"]
    with pytest.raises(
        ValueError, match="With validation_fraction 0 the test split is validated on, and there is none"
    ):
        load_classification_dataset(DatasetDict(train=data["train"]), validation_fraction=0)


def test_clusters_leave_a_fifth_of_a_class_that_they_would_take_whole():
    labels = np.repeat([0, 1], [20, 60])
    clusters = np.concatenate([np.arange(20) % 2, 2 + np.arange(60) % 2])
    chosen, rest = meta_indices(labels, 10, clusters=clusters, num_clusters=4, source="validation", fix="", seed=0)
    assert np.bincount(labels[chosen]).tolist() == [16, 20]
    assert np.bincount(labels[rest]).tolist() == [4, 40]
    assert not set(chosen) & set(rest)
