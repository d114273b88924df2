import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features
from datasets import Image as ImageFeature
from datasets.arrow_dataset import Column
from huggingface_hub import constants
from PIL import Image

from clp_hf.data import EvalTransform, ImageClassificationDataset
from clp_hf.data.checks import column
from clp_hf.data.embedded import embedded_birds
from clp_hf.data.groups import counts
from clp_hf.data.holdout import split_validation
from clp_hf.data.loading import load_classification_dataset

PIXEL = Image.new("RGB", (4, 4))


def source(n=8, splits=("train", "validation", "test"), **columns):
    columns = {"label": [i % 2 for i in range(n)], **columns}

    def split():
        return Dataset.from_dict({"image": [PIXEL] * n, **columns}).cast_column("image", ImageFeature())

    return DatasetDict({name: split() for name in splits})


PLACE = [0, 0, 1, 1, 0, 0, 1, 1]


def test_columns_are_read_whole(monkeypatch):
    """Row by row those of a million images take half a minute, at every look at them."""
    monkeypatch.setattr(Column, "__iter__", lambda column: pytest.fail(f"a column of {len(column)} rows, one by one"))
    names = {"label_names": ["landbird", "waterbird"], "attribute_names": ["land", "water"]}
    for data in (
        load_classification_dataset(source(place=PLACE), **names),
        load_classification_dataset(source(place=PLACE, group=[2 * (i % 2) + PLACE[i] for i in range(8)]), **names),
        load_classification_dataset(source(24, ("train", "test")), validation_fraction=2 / 3),  # held out of training
    ):
        assert list(counts(data["train"], "label").values()) == [4, 4]
        assert sorted(column(data["train"], "label")) == [0] * 4 + [1] * 4


def test_what_is_held_out_is_what_datasets_would_draw():
    train = source(103, ("train",), number=list(range(103)))["train"].cast_column("label", ClassLabel(names=["a", "b"]))
    for fraction, seed in ((0.1, 0), (1 / 3, 0), (0.1, 1)):
        found = split_validation(DatasetDict(train=train), fraction, seed)
        expected = train.train_test_split(fraction, seed=seed, stratify_by_column="label")
        assert found["train"]["number"][:] == expected["train"]["number"][:]
        assert found["validation"]["number"][:] == expected["test"]["number"][:]


def test_embedded_is_the_default(monkeypatch):
    monkeypatch.setattr("clp_hf.data.sources.kept_birds", lambda _: embedded_birds(40, 8, 8, image_size=32))
    data = load_classification_dataset()
    assert set(data) == {"train", "validation", "test"}
    assert set(data["train"].column_names) == {"image", "label", "place", "group", "mask"}


def test_group_comes_from_label_and_place():
    data = load_classification_dataset(
        source(place=PLACE), label_names=["landbird", "waterbird"], attribute_names=["land", "water"]
    )
    assert data["test"]["group"][:] == [0, 2, 1, 3] * 2
    assert data["test"].features["group"].names[2] == "waterbird_on_land"


def test_columns_by_flag_under_canonical_names():
    renamed = source(size=["s", "m"] * 4).rename_columns({"image": "picture", "label": "kind"})
    with pytest.raises(ValueError, match=r"no image column 'image'; the columns are .*picture"):
        load_classification_dataset(renamed, label_column="kind")
    data = load_classification_dataset(renamed, image_column="picture", label_column="kind", attribute_column="size")
    assert set(data["train"].column_names) == {"image", "label", "size", "group"}
    assert data["train"].features["size"].names == ["m", "s"]


def test_columns_as_cifar_has_them_on_the_hub():
    cifar = source(img=[PIXEL] * 8, fine_label=[1, 0] * 4).remove_columns(["image", "label"])
    data = load_classification_dataset(cifar)
    assert set(data["train"].column_names) == {"image", "label"}
    assert data["train"]["label"][:2] == [1, 0]


def test_label_kinds():
    strings = load_classification_dataset(source(label=["dog", "cat"] * 4))
    assert strings["train"].features["label"].names == ["cat", "dog"]
    assert strings["train"]["label"][:2] == [1, 0]
    integers = load_classification_dataset(source())
    assert integers["test"].features["label"] == ClassLabel(names=["0", "1"])


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({"label": [0.5, 1.0] * 4}, {}, "index 0: 0.5 is a float and no whole number"),
        ({"label": [0, -1] * 4}, {}, "index 1: -1 is out of range: beside .*hidden"),
        ({"label": [0, None] * 4}, {}, "index 1: the value is missing"),
        ({"label": [0] * 8}, {}, "images of one class only"),
        ({"label": ["a", "b"] * 4}, {"label_names": ["a", "c"]}, r"values \['b'\] are not among"),
        ({}, {"group_column": "cell"}, "no group column 'cell'"),
        ({}, {"label_column": "image"}, "'image' is taken for image and label"),
        ({"group": [[0, 1]] * 8}, {}, "Overlapping groups"),
        ({"group": [0, 0, 1, 1] * 2}, {}, "several classes"),
        ({}, {"validation_split": "dev"}, "no validation split 'dev'; the splits are"),
        ({"box": [[0, 0, 0, 3]] * 8}, {"box_column": "box"}, "empty box"),
        ({"box": [[0, 0, 1]] * 8}, {"box_column": "box"}, "four numbers"),
    ],
)
def test_bad_input_is_named(columns, options, message):
    with pytest.raises(ValueError, match=message):
        load_classification_dataset(source(**columns), **options)


def test_label_out_of_range_in_evaluation_is_named():
    data = source()
    data["test"] = source(label=[0, 1, 2, 1, 0, 1, 0, 1])["test"]
    with pytest.raises(ValueError, match=r"split 'test', index 2: 2 is out of range, expected 0 \.\.\. 1"):
        load_classification_dataset(data)


def test_group_unseen_in_training_is_named():
    data = source(place=PLACE)
    data["train"] = source(place=[0, 1] * 4)["train"]
    with pytest.raises(ValueError, match=r"'validation' has groups \['0_on_1', '1_on_0'\] that do not occur"):
        load_classification_dataset(data)


def test_ignored_columns_are_gone():
    data = load_classification_dataset(source(group=[0, 0, 1, 1] * 2), group_column="none")
    assert set(data["train"].column_names) == {"image", "label"}


def test_boxes_become_corners():
    boxes = [[1, 1, 2, 3]] * 8
    data = load_classification_dataset(source(box=boxes), box_column="box")
    assert data["train"]["box"][0] == [1, 1, 3, 4]
    assert load_classification_dataset(source(box=boxes), box_column="box", box_format="xyxy")["test"]["box"][0] == [
        *boxes[0]
    ]


def test_validation_is_split_off_by_group():
    data = load_classification_dataset(source(40, ("train",), place=PLACE * 5), validation_fraction=0.2, seed=1)
    assert set(data) == {"train", "validation"}
    assert list(counts(data["validation"]).values()) == [2, 2, 2, 2]
    assert list(counts(data["train"]).values()) == [8, 8, 8, 8]


def test_folder_of_parquet_and_a_single_file(tmp_path):
    for name, split in source(20, place=PLACE[:4] * 5).items():
        split.to_parquet(tmp_path / f"{name}-00000-of-00001.parquet")
    cache = str(tmp_path / "cache")
    folder = load_classification_dataset(tmp_path, cache_dir=cache)
    assert {name: len(split) for name, split in folder.items()} == {"train": 20, "validation": 20, "test": 20}
    file = load_classification_dataset(tmp_path / "train-00000-of-00001.parquet", cache_dir=cache)
    assert {name: len(split) for name, split in file.items()} == {"train": 16, "validation": 4}


def test_image_folder(tmp_path):
    for split in ("train", "test"):
        for kind in ("cat", "dog"):
            (tmp_path / "pets" / split / kind).mkdir(parents=True)
            for index in range(5):
                PIXEL.save(tmp_path / "pets" / split / kind / f"{index}.png")
    data = load_classification_dataset(tmp_path / "pets", cache_dir=str(tmp_path / "cache"))
    assert {name: len(split) for name, split in data.items()} == {"train": 8, "validation": 2, "test": 10}
    assert data["train"].features["label"].names == ["cat", "dog"]


def test_unreachable_hub_names_the_offline_ways(monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # the discard port: nothing listens
    with pytest.raises(ConnectionError, match=r"'some/birds' is neither a local path.*embedded"):
        load_classification_dataset("some/birds")


def test_features_survive():
    features = Features(image=ImageFeature(), label=ClassLabel(names=["x", "y"]), place=ClassLabel(names=["l", "w"]))
    split = Dataset.from_dict({"image": [PIXEL] * 4, "label": [0, 0, 1, 1], "place": [0, 1, 0, 1]}, features=features)
    data = load_classification_dataset(DatasetDict(train=split, val=split))
    assert data["validation"].features["group"].names == ["x_on_l", "x_on_w", "y_on_l", "y_on_w"]
    np.testing.assert_array_equal(data["validation"]["group"][:], [0, 1, 2, 3])


@pytest.mark.parametrize(
    ("labels", "held_out"),
    [
        (["a"] * 20 + ["b"], 4),
        ([f"c{index:03d}" for index in range(30)] * 3, 30),
        ([-1, 1] * 10, 4),
        ([1.0, 3.0] * 10, 4),
        ([True, False] * 10, 4),
    ],
)
def test_small_classes_are_held_out_of_where_they_can_be(labels, held_out):
    data = load_classification_dataset(source(len(labels), ("train",), label=labels))
    assert (len(data["train"]), len(data["validation"])) == (len(labels) - held_out, held_out)
    assert set(data["train"]["label"]) == set(range(len(set(labels))))
    with pytest.raises(ValueError, match="none can be held out of 2 training images"):
        load_classification_dataset(source(2, ("train",), label=["a", "b"]))


@pytest.mark.parametrize("hidden", [[-1] * 8, [None] * 8, "no column"])
def test_a_test_split_that_hides_its_labels_is_left_out(hidden, monkeypatch):
    said, data = [], source()
    monkeypatch.setattr("clp_hf.data.loading.logger.warning", said.append)
    data["test"] = data["test"].remove_columns("label")
    if hidden != "no column":
        data["test"] = data["test"].add_column("label", hidden)
    assert set(load_classification_dataset(data)) == {"train", "validation"}
    assert "hides its labels (8 images" in said[0]


def test_the_only_split_is_the_training_split():
    data = load_classification_dataset(source(20, ("full",), label=[0, 1] * 10))
    assert {name: len(split) for name, split in data.items()} == {"train": 16, "validation": 4}


@pytest.mark.parametrize("mask_value", [None, [255]])
def test_a_mask_that_is_missing_stays_missing(mask_value):
    mask = Image.new("L", (4, 4))
    mask.paste(255, (1, 1, 3, 3))
    loaded = load_classification_dataset(source(mask=[mask, None] * 4), mask_value=mask_value)["train"]
    assert [value is None for value in loaded["mask"][:]] == [False, True] * 4
    data = ImageClassificationDataset(loaded, EvalTransform(4, [0.5] * 3, [0.5] * 3))
    assert [item["mask"].sum().item() for item in data.__getitems__([0, 1])] == [4, 0]


def test_given_mask_values_make_black_and_white_masks():
    mask = Image.fromarray(np.array([[0, 3], [7, 255]], np.uint8))
    data = source(mask=[mask] * 8)
    data = DatasetDict({name: split.cast_column("mask", ImageFeature()) for name, split in data.items()})
    loaded = load_classification_dataset(data, mask_value=[3, 7])
    np.testing.assert_array_equal(np.asarray(loaded["test"][0]["mask"]), [[0, 255], [255, 0]])
