import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Value

from clp_hf.data import long_tail
from clp_hf.data.scenarios.long_tail import class_sizes, index_hash

NAMES = list("abcdefghij")


def labelled(labels, names=None):
    kind = ClassLabel(names=names) if names else Value("int64")
    return Dataset.from_dict(
        {"label": labels, "row": range(len(labels))}, features=Features(label=kind, row=Value("int64"))
    )


def sizes(dataset):
    return np.bincount(dataset["label"][:]).tolist()


@pytest.fixture(scope="module")
def balanced():
    """As many images as CIFAR-10 has, without images."""
    return labelled(np.arange(50_000) % 10, NAMES)


def test_exponential_sizes_are_the_published_ones(balanced):
    tail = long_tail(balanced, 100)
    assert sizes(tail) == [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
    assert len(tail) == 12_406
    assert sizes(long_tail(balanced, 10)) == [5000, 3871, 2997, 2320, 1796, 1391, 1077, 834, 645, 500]
    assert class_sizes([500] * 100, 100).sum() == 10_847  # CIFAR-100


def test_step_reduces_the_second_half(balanced):
    assert sizes(long_tail(balanced, 10, profile="step")) == [5000] * 5 + [500] * 5


def test_ratio_one_keeps_everything(balanced):
    assert len(long_tail(balanced, 1)) == 50_000


def test_the_canonical_split(balanced):
    tail = long_tail(balanced, 100, expected_hash="0c818b8e1314fa72")
    assert index_hash(tail["row"][:]) == "0c818b8e1314fa72"
    assert tail["row"][:] == sorted(set(tail["row"][:]))  # in the old order, each once
    with pytest.raises(ValueError, match="index hash 0c818b8e1314fa72, expected 0000"):
        long_tail(balanced, 100, expected_hash="0000")
    assert long_tail(balanced, 100, seed=1)["row"][:] != tail["row"][:]


def test_a_stronger_tail_is_part_of_a_weaker_one(balanced):
    weak, strong = (set(long_tail(balanced, ratio)["row"][:]) for ratio in (10, 100))
    assert strong < weak


def test_the_largest_class_is_what_the_others_allow():
    assert sizes(long_tail(labelled([0] * 100 + [1] * 8), 10)) == [80, 8]


def test_hash_knows_the_order():
    assert index_hash([1, 2]) == index_hash(np.array([1, 2], dtype=np.int32)) != index_hash([2, 1])


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        ([0, 1] * 5, {"ratio": 0.5}, "at least 1, got 0.5"),
        ([0, 1] * 5, {"ratio": float("nan")}, "at least 1, got nan"),
        ([0, 1, 2] * 5, {"ratio": 100}, "leaves class 1, 2 without images: the largest class has 5"),
        ([0, 1] * 5, {"ratio": 2, "profile": "linear"}, "'linear'; choose one of exponential, step"),
        ([0, 2] * 5, {"ratio": 2}, "leaves class 0, 1, 2 without images"),
        ([0] * 5, {"ratio": 2}, "two classes or more"),
        ([-1, 1], {"ratio": 2}, "found -1 … 1"),
        ([0, 1], {"ratio": 2, "label_column": "fine"}, r"no column 'fine'; the columns are \['label', 'row'\]"),
    ],
)
def test_bad_input_is_named(labels, options, message):
    with pytest.raises(ValueError, match=message):
        long_tail(labelled(labels), **options)
