import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from clp_hf.data.scenarios.long_tail import index_hash
from clp_hf.data.scenarios.superclasses import SUPERCLASSES, nested_long_tail, superclass_groups

CLASSES = sorted(name for members in SUPERCLASSES.values() for name in members)


@pytest.fixture(scope="module")
def cifar100():
    """As many training images as CIFAR-100 has, without images."""
    fine = ClassLabel(names=CLASSES)
    columns = {"fine_label": np.arange(50_000) % 100, "row": np.arange(50_000)}
    train = Dataset.from_dict(columns, features=Features(fine_label=fine, row=Value("int64")))
    return DatasetDict(train=train, test=train.select(range(500)))


@pytest.fixture(scope="module")
def grouped(cifar100):
    return superclass_groups(cifar100)


def sizes(dataset):
    """Images of every group, (superclass, class of it), in the order of the labels."""
    counts = np.bincount(dataset["group"][:], minlength=100)
    return np.array([[counts[CLASSES.index(name)] for name in sorted(members)] for members in SUPERCLASSES.values()])


def test_twenty_superclasses_of_five_classes_each():
    assert len(SUPERCLASSES) == 20
    assert {len(members) for members in SUPERCLASSES.values()} == {5}
    assert len(set(CLASSES)) == 100
    assert list(SUPERCLASSES) == sorted(SUPERCLASSES)


def test_the_label_is_the_superclass_and_the_group_the_class(grouped, cifar100):
    for role, split in grouped.items():
        assert set(split.column_names) == {"row", "label", "group"}
        assert split["group"][:] == cifar100[role]["fine_label"][:]
        for label, group in zip(split["label"][:200], split["group"][:200], strict=True):
            superclass = split.features["label"].int2str(label)
            assert split.features["group"].int2str(group) in SUPERCLASSES[superclass]


def test_a_column_of_superclasses_goes_before_the_table():
    columns = {"label": ["ant", "fly", "oak"], "coarse_label": ["insect", "insect", "tree"]}
    train = superclass_groups(DatasetDict(train=Dataset.from_dict(columns)))["train"]
    assert train.features["label"].names == ["insect", "tree"]
    assert train.features["group"].names == ["ant", "fly", "oak"]
    assert train["label"][:] == [0, 0, 1]


@pytest.mark.parametrize(
    ("columns", "arguments", "message"),
    [
        ({"fine_label": ["ant"]}, {}, r"1 of 1 classes in 'fine_label' are none of CIFAR-100's, such as \['ant'\]"),
        ({"fine_label": [0, 1]}, {}, "or the names of bare integers as `class_names`"),
        ({"kind": [0]}, {}, r"no column 'fine_label' of the classes; the columns are \['kind'\]"),
        ({"label": [0]}, {"fine_column": "kind"}, "no column 'kind'"),
    ],
)
def test_classes_that_are_not_known(columns, arguments, message):
    with pytest.raises(ValueError, match=message):
        superclass_groups(DatasetDict(train=Dataset.from_dict(columns)), **arguments)


def test_attributes_are_long_tailed_inside_balanced_classes(grouped):
    tail = nested_long_tail(grouped["train"], "alt")
    np.testing.assert_array_equal(sizes(tail), [[500, 158, 50, 15, 5]] * 20)
    assert index_hash(tail["row"][:]) == "256084d1e8760b88"
    assert tail["row"][:] == sorted(set(tail["row"][:]))


def test_classes_are_long_tailed_and_attributes_balanced_inside(grouped):
    found = sizes(nested_long_tail(grouped["train"], "clt", class_imbalance=100))
    assert (found == found[:, :1]).all()
    assert found[[0, 1, -1], 0].tolist() == [500, 392, 5]


def test_both_are_long_tailed_and_no_class_is_empty(grouped):
    found = sizes(nested_long_tail(grouped["train"], "glt", class_imbalance=100, attribute_imbalance=10))
    assert found[0].tolist() == [500, 281, 158, 88, 50]
    assert found[-1].tolist() == [5, 2, 1, 1, 1]
    assert (np.diff(found, axis=0) <= 0).all()


def test_the_seed_decides_which_images_stay(grouped):
    first, again, other = (nested_long_tail(grouped["train"], "alt", seed=seed)["row"][:] for seed in (0, 0, 1))
    assert first == again != other


def test_groups_of_which_there_are_fewer(grouped):
    few = grouped["train"].filter(lambda group, row: group != 0 or row < 2000, input_columns=["group", "row"])
    assert sizes(nested_long_tail(few, "clt", class_imbalance=1)).tolist() == [[20] * 5] * 20
    without = few.filter(lambda group: group != 1, input_columns="group")
    assert (sizes(nested_long_tail(without, "alt")) == 0).sum() == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"protocol": "lt"}, "protocol is 'lt'; choose one of alt, clt, glt"),
        ({"protocol": "alt", "attribute_imbalance": 0.5}, "at least 1, got 0.5"),
        ({"protocol": "glt", "class_imbalance": float("nan")}, "at least 1, got nan"),
    ],
)
def test_bad_arguments(arguments, message, grouped):
    with pytest.raises(ValueError, match=message):
        nested_long_tail(grouped["train"], **arguments)


def test_a_group_of_several_labels_is_refused():
    data = Dataset.from_dict({"label": [0, 1, 1], "group": [0, 0, 1]})
    with pytest.raises(ValueError, match=r"images of one label, but \['0'\] hold several"):
        nested_long_tail(data, "alt")
