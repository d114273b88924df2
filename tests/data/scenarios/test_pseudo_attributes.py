import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features

from clp_hf.causal import select_meta_indices
from clp_hf.data.groups import add_groups, counts
from clp_hf.data.scenarios.pseudo_attributes import add_pseudo_attributes


def labelled(sizes=(24, 24)):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    return Dataset.from_dict({"label": labels}, features=Features(label=ClassLabel(names=["cat", "dog"])))


def blobs(sizes):
    """Features (n, 2) of well separated clusters of these sizes."""
    centres = np.repeat(10 * np.arange(len(sizes)), sizes)[:, None] * np.ones(2)
    return centres + np.random.default_rng(0).normal(0, 0.1, centres.shape)


def test_clusters_are_found_within_each_class_and_named_by_size():
    features = np.concatenate([blobs((4, 14, 6)), blobs((15, 2, 7))])
    found = np.asarray(add_pseudo_attributes(labelled(), features, 3)["attribute"])
    np.testing.assert_array_equal(found, np.repeat([2, 0, 1, 0, 2, 1], [4, 14, 6, 15, 2, 7]))


def test_a_meta_set_has_as_many_of_every_cluster():
    features = np.concatenate([blobs((4,) * 6), blobs((4,) * 6)])
    clustered = add_groups(DatasetDict(train=add_pseudo_attributes(labelled(), features)), "attribute", "_")["train"]
    assert set(counts(clustered).values()) == {4}
    chosen = select_meta_indices(clustered["label"][:], 2, clustered["group"][:])
    assert set(counts(clustered.select(chosen)).values()) == {2}


@pytest.mark.parametrize(
    ("sizes", "features", "options", "message"),
    [
        ((24, 5), np.zeros((29, 2)), {}, r"of 6 clusters.*too few have \{'dog': 5\}"),
        ((6, 6), np.zeros((11, 2)), {}, r"\(12, d\).*got shape \(11, 2\)"),
        ((6, 6), np.full((12, 2), np.nan), {}, "NaN"),
        ((6, 6), np.zeros((12, 2)), {"clusters": 0}, "at least 1 cluster"),
        ((6, 6), np.zeros((12, 2)), {"column": "label"}, "'label' already"),
    ],
)
def test_bad_input_is_named(sizes, features, options, message):
    with pytest.raises(ValueError, match=message):
        add_pseudo_attributes(labelled(sizes), features, **options)
