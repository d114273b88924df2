import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features

from clp_hf.data.groups import (
    add_groups,
    check_groups,
    counts,
    group_names,
    group_proportions,
    in_order_of_pairs,
)


def splits():
    features = Features(label=ClassLabel(names=["cat", "dog"]), place=ClassLabel(names=["in", "out", "sea"]))
    return DatasetDict(train=Dataset.from_dict({"label": [0, 0, 1, 1], "place": [0, 2, 2, 2]}, features=features))


def test_group_is_class_times_attributes_plus_attribute():
    train = add_groups(splits(), "place")["train"]
    assert train["group"][:] == [0, 2, 5, 5]
    assert train.features["group"].names == group_names(["cat", "dog"], ["in", "out", "sea"])
    assert train.features["group"].int2str(5) == "dog_on_sea"


def test_counts_and_proportions_keep_empty_groups():
    train = add_groups(splits(), "place")["train"]
    assert list(counts(train).values()) == [1, 0, 1, 0, 0, 2]
    assert counts(train, "label") == {"cat": 2, "dog": 2}
    proportions = group_proportions(train)
    assert proportions["dog_on_sea"] == 0.5
    assert sum(proportions.values()) == pytest.approx(1)


def with_groups(groups, labels=(0, 0, 1, 1), places=(0, 1, 0, 1), names=None):
    features = Features(
        label=ClassLabel(names=["cat", "dog"]),
        place=ClassLabel(names=["in", "out"]),
        group=ClassLabel(names=names or ["in cat", "in dog", "out cat", "out dog"]),
    )
    columns = {"label": list(labels), "place": list(places), "group": list(groups)}
    return Dataset.from_dict(columns, features=features)


def test_groups_given_attribute_first_are_numbered_class_first_and_keep_their_names():
    train = in_order_of_pairs(DatasetDict(train=with_groups([0, 2, 1, 3])), "place")["train"]
    assert train["group"][:] == [0, 1, 2, 3]
    assert train.features["group"].names == ["in cat", "out cat", "in dog", "out dog"]


def test_groups_that_are_no_pairs_stay_as_they_are():
    splits = DatasetDict(train=with_groups([0, 0, 1, 1]))
    assert in_order_of_pairs(splits, "place")["train"]["group"][:] == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        (with_groups([0, 1, 1, 2]), None, r"groups \['in dog'\] hold images of several classes"),
        (with_groups([0, 1, 2, 3]), with_groups([3, 1, 2, 0]), "'in cat' holds images of class 'cat' in split 'train'"),
        (with_groups([0, 0, 1, 1]), with_groups([0, 2, 1, 1]), r"\['out cat'\] that do not occur in the training"),
    ],
)
def test_groups_are_checked_between_splits(train, test, message):
    with pytest.raises(ValueError, match=message):
        check_groups(DatasetDict(train=train, **({"test": test} if test else {})))
