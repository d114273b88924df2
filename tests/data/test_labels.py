"""Label spaces meet by name: whatever splits, flags and models call and count their classes, an image keeps its own."""

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from hypothesis import given, settings
from hypothesis import strategies as st

from clp_hf.data.labels import encode, labels_are_hidden

NAMES = ["ant", "bee", "cat", "dog"]
KINDS = ("class", "string", "large_string")


def stored(names, kind, order=NAMES):
    """A split whose labels are these names, stored as a `ClassLabel` that counts in `order`, or as strings."""
    if kind == "class":
        return Dataset.from_dict(
            {"label": [list(order).index(name) for name in names]}, features=Features(label=ClassLabel(names=order))
        )
    return Dataset.from_dict({"label": list(names)}, features=Features(label=Value(kind)))


def split(values, dtype=None):
    return Dataset.from_dict({"label": values}, features=Features(label=Value(dtype)) if dtype else None)


def names_of(encoded):
    return [encoded.features["label"].int2str(code) for code in encoded["label"][:]]


@settings(max_examples=40, deadline=None)
@given(
    train=st.permutations(NAMES),
    test=st.lists(st.sampled_from(NAMES), min_size=1, max_size=5),
    orders=st.tuples(st.permutations(NAMES), st.permutations(NAMES)),
    kinds=st.tuples(st.sampled_from(KINDS), st.sampled_from(KINDS)),
    wanted=st.none() | st.permutations(NAMES),
    known=st.none() | st.permutations([*NAMES, "eel"]),
)
def test_an_image_keeps_its_name(train, test, orders, kinds, wanted, known):
    splits = DatasetDict(train=stored(train, kinds[0], orders[0]), test=stored(test, kinds[1], orders[1]))
    encoded = encode(splits, "label", wanted, known)
    assert names_of(encoded["train"]) == list(train)
    assert names_of(encoded["test"]) == test
    assert encoded["train"].features == encoded["test"].features
    if wanted or known:
        assert encoded["train"].features["label"].names == list(known or wanted)


@settings(max_examples=30, deadline=None)
@given(
    values=st.lists(st.integers(1, 30), min_size=2, max_size=6, unique=True),
    kinds=st.tuples(*[st.sampled_from(["int64", "uint8", "float64", "string"])] * 2),
)
def test_bare_integers_are_their_own_names_however_they_are_stored(values, kinds):
    splits = DatasetDict(
        {
            role: split([str(v) if kind == "string" else v for v in values], kind)
            for role, kind in zip(("train", "test"), kinds, strict=True)
        }
    )
    encoded = encode(splits, "label")
    assert encoded["train"].features["label"].names == [str(value) for value in sorted(values)]
    assert names_of(encoded["train"]) == names_of(encoded["test"]) == [str(value) for value in values]


@pytest.mark.parametrize(
    ("values", "given_names", "expected"),
    [
        ([0, 1, 1], ["no", "yes"], ["no", "yes", "yes"]),
        ([False, True, True], ["no", "yes"], ["no", "yes", "yes"]),
        ([-1, 1, 1], ["dark", "blond"], ["dark", "blond", "blond"]),
        ([-1, 1, 1], None, ["-1", "1", "1"]),
        ([1, 2, 3], ["a", "b", "c"], ["a", "b", "c"]),
        ([0, 1, 1], ["1", "0"], ["0", "1", "1"]),
        (["10", "2", "2"], ["two", "ten"], ["ten", "two", "two"]),
    ],
)
def test_given_names_are_those_of_bare_integers_in_their_order(values, given_names, expected):
    assert names_of(encode(DatasetDict(train=split(values)), "label", given_names)["train"]) == expected


def test_a_models_classes_count_bare_integers_only_where_they_are_none_of_its_names():
    known = ["2", "1", "0"]
    assert names_of(encode(DatasetDict(train=split([0, 2])), "label", None, known)["train"]) == ["0", "2"]
    named = encode(DatasetDict(train=split([0, 2])), "label", None, ["a", "b", "c"])["train"]
    assert names_of(named) == ["a", "c"]
    nameless = encode(DatasetDict(train=stored(["bee", "ant"], "string")), "label", None, ["LABEL_0", "LABEL_1"])
    assert names_of(nameless["train"]) == ["bee", "ant"]


@pytest.mark.parametrize(
    ("splits", "options", "message"),
    [
        ({"train": ["ant", "bee"], "test": ["bee", "cat"]}, {}, r"\['cat'\] are not among the names \['ant', 'bee'\]"),
        ({"train": ["ant", "bee"], "test": [0, 1]}, {}, r"\['0', '1'\] are not among the names \['ant', 'bee'\]"),
        ({"train": [0, 1], "test": [1, 2]}, {}, r"split 'test', index 1: 2 is out of range"),
        ({"train": ["ant", "bee"]}, {"names": ["gull", "tern"]}, r"names of its own, \['ant', 'bee'\].*\['gull', 'ter"),
        ({"train": [0, 1, 2]}, {"names": ["gull", "tern"]}, r"3 values.*but 2 names were given"),
        ({"train": [0, 2, 2]}, {"names": ["a", "b", "c"]}, r"every integer 0 \.\.\. 2 .* \['1'\] never occur"),
        ({"train": ["no", "yes"]}, {"names": [False, True]}, r"class_names has False, .*quotes.*'no', 'yes'"),
        ({"train": [0, 1]}, {"names": ["a", "a"]}, "twice"),
        (
            {"train": ["ant", "bee"]},
            {"known": ["x", "y"]},
            r"classes \['ant', 'bee'\], the checkpoint tells \['x', 'y'",
        ),
        ({"train": [0, 1, 5]}, {"known": ["x", "y"]}, r"classes \['0', '1', '5'\], the checkpoint"),
        ({"train": [0, 1, -1]}, {}, "index 2: -1 is out of range: beside .* hidden label"),
        ({"train": [0.0, float("nan")]}, {}, "index 1: the value is missing"),
        ({"train": [1.0, float("inf")]}, {}, "index 1: inf is a float and no whole number"),
    ],
)
def test_spaces_that_do_not_meet_are_shown(splits, options, message):
    with pytest.raises(ValueError, match=message):
        encode(DatasetDict({role: split(values) for role, values in splits.items()}), "label", **options)


@pytest.mark.parametrize(
    ("hidden", "data"),
    [
        (True, split([-1, -1])),
        (True, split([None, None], "string")),
        (True, Dataset.from_dict({"label": [-1]}, features=Features(label=ClassLabel(names=["a", "b"])))),
        (True, Dataset.from_dict({"image": [1]})),
        (False, split([-1, 1])),
        (False, split(["a"])),
    ],
)
def test_hidden_labels(hidden, data):
    assert labels_are_hidden(data, "label") == hidden


def test_the_codes_are_positions_in_the_names():
    encoded = encode(DatasetDict(train=stored(["cat", "ant", "cat"], "string")), "label")["train"]
    np.testing.assert_array_equal(encoded["label"][:], [1, 0, 1])
