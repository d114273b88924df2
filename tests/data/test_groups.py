import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features

from clp_hf.data.groups import add_groups, counts, group_names, group_proportions


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
