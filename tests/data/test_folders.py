"""Folders as people have them: every image in a split and a class, or an error that names the rest and the fix."""

import glob

import numpy as np
import pandas as pd
import pytest
from datasets import ClassLabel, Dataset, Features
from datasets import Image as ImageFeature
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from clp_hf.data.folders import SPLIT_WORDS, split_parquet_files
from clp_hf.data.loading import load_classification_dataset
from clp_hf.data.sources import read_splits

COLOURS = {0: (220, 30, 30), 1: (30, 30, 220), 2: (30, 200, 30)}


def picture(colour=0):
    return Image.new("RGB", (4, 4), COLOURS[colour])


def write(folder, *paths):
    """Images at these paths, each of the colour of its class: the folder's place in the sorted names."""
    names = sorted({path.split("/")[-2] for path in paths if "/" in path})
    for path in paths:
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        picture(names.index(path.split("/")[-2]) if "/" in path else 0).save(target)
    return folder


def named_colours(split):
    names = split.features["label"].names
    return {(names[row["label"]], tuple(np.asarray(row["image"])[0, 0].tolist())) for row in split}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize(
    "classes",
    [
        ("bus", "car", "train"),
        ("valid", "invalid"),
        ("test_tube", "flask"),
        ("dev", "ops"),
        ("Gull [juv]", "Spatz über *", "sparrow?"),
        ("UPPER", "lower"),
    ],
)
@pytest.mark.parametrize("file", ["{}.png", "train_{}.PNG", "ILSVRC2012_val_{}.jpg", "a test {} [1].png"])
def test_what_classes_and_files_are_called_takes_no_image_away(tmp_path, classes, file):
    root = write(tmp_path / "my [birds]", *(f"{name}/{file.format(i)}" for name in classes for i in range(2)))
    (splits,) = read_splits(root).values()
    assert len(splits) == 2 * len(classes)
    assert splits.features["label"].names == sorted(classes)
    assert len(named_colours(splits)) == len(classes)


@pytest.mark.parametrize(
    ("folders", "splits"),
    [
        (("train", "val", "test"), {"train", "validation", "test"}),
        (("Training", "EVAL"), {"train", "test"}),
        (("my_train", "my-test"), {"train", "test"}),
        (("alice", "bob"), {"train"}),
    ],
)
def test_folders_of_class_folders_are_splits_by_name(tmp_path, folders, splits):
    write(tmp_path / "d", *(f"{part}/{name}/{i}.png" for part in folders for name in ("a", "train") for i in range(2)))
    found = read_splits(tmp_path / "d")
    assert set(found) == splits
    assert sum(map(len, found.values())) == 4 * len(folders)
    assert all(split.features["label"].names == ["a", "train"] for split in found.values())


def test_other_files_are_ignored_with_a_word(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr("clp_hf.data.folders.logger.warning", said.append)
    root = write(tmp_path / "d", "a/1.png", "b/2.png")
    for junk in (".DS_Store", "a/._1.png", "a/Thumbs.db", "notes.txt", "__MACOSX/x.jpg", ".checkpoints/y.png"):
        (root / junk).parent.mkdir(exist_ok=True)
        (root / junk).write_bytes(b"junk")
    assert len(read_splits(root)["train"]) == 2
    assert "2 files that are no images are ignored (notes.txt, a/Thumbs.db" in said[0]


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (["cat.0.png", "dog.0.png"], "2 images and no folders"),
        (["a/1.png", "b/2.png", "3.png"], "different depths, such as .*3.png"),
        (["a/1.png", "b/x/2.png"], "different depths"),
        (["train/a/1.png", "train/b/1.png", "extra/a/2.png"], r"\(train\), and 1 images beside them.*extra"),
        (["train/a/1.png", "train/b/1.png", "2.png"], "1 images beside them"),
        (["train/a/1.png", "training/b/1.png"], "train and training are both called like the train split"),
        (["train_test/a/1.png", "val/b/1.png"], "called like two splits"),
        (["train/1.png", "test/2.png"], "folders test, train hold images without class folders"),
    ],
)
def test_what_belongs_nowhere_is_named(tmp_path, paths, message):
    with pytest.raises(ValueError, match=message):
        read_splits(write(tmp_path / "d", *paths))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: (root / "birds.zip").write_bytes(b"PK"), "unpack it"),
        (lambda root: (root / "a.py").write_text("import datasets"), "doesn't contain any data files"),
        (lambda root: None, "doesn't contain any data files"),
    ],
)
def test_a_folder_that_is_no_data_set_says_what_is_read(tmp_path, make, message):
    (tmp_path / "d").mkdir()
    make(tmp_path / "d")
    with pytest.raises(ValueError, match=f"{message}.*metadata.csv.*parquet"):
        read_splits(tmp_path / "d")


@pytest.mark.parametrize(("name", "message"), [("x.csv", "as metadata.csv"), ("x.tar.gz", "unpack"), ("x", "without")])
def test_a_file_that_is_no_data_set_says_the_way(tmp_path, name, message):
    (tmp_path / name).write_text("image,label\n")
    with pytest.raises(ValueError, match=message):
        read_splits(tmp_path / name)
    with pytest.raises(ValueError, match="no folder or file"):
        read_splits(tmp_path / "not there")


def test_metadata_beside_the_images(tmp_path):
    root = write(tmp_path / "d", "images/1.png", "images/2.png", "images/3.png")
    rows = pd.DataFrame({"file_name": ["images/1.png", "images/2.png"], "label": ["a", "b"], "place": ["x", "y"]})
    rows.to_csv(root / "metadata.csv", index=False)
    with pytest.raises(ValueError, match=r"holds 3 images, and 2|cannot be read"):
        read_splits(root)
    (root / "images/3.png").unlink()
    assert read_splits(root)["train"]["label"][:] == ["a", "b"]
    rows.rename(columns={"file_name": "path"}).to_csv(root / "metadata.csv", index=False)
    with pytest.raises(ValueError, match="call that column file_name"):
        read_splits(root)


def test_waterbirds_as_it_is_distributed(tmp_path):
    root = write(tmp_path / "d", *(f"001.Gull/{i}.jpg" for i in range(6)))
    table = pd.DataFrame({"img_id": range(6), "img_filename": [f"001.Gull/{i}.jpg" for i in range(6)]})
    table = table.assign(y=[0, 1] * 3, split=[0, 0, 1, 1, 2, 2], place=[1, 1] * 3)
    table.to_csv(root / "metadata.csv", index=False)
    data = load_classification_dataset(root)
    assert {name: len(split) for name, split in data.items()} == {"train": 2, "validation": 2, "test": 2}
    assert data["train"].features["label"].names == ["landbird", "waterbird"]
    groups = data["train"].features["group"]
    assert [groups.int2str(code) for code in data["train"]["group"][:]] == ["landbird_on_water", "waterbird_on_water"]
    picture().save(root / "001.Gull" / "more.jpg")
    with pytest.raises(ValueError, match=r"does not name 1 of the 7 images, such as 001.Gull.more.jpg"):
        read_splits(root)
    table.assign(y=3).to_csv(root / "metadata.csv", index=False)
    with pytest.raises(ValueError, match=r"column y holds \[3\]"):
        read_splits(root)


NUMBERS = {"ant": 0, "bee": 1, "cat": 2}


def parquet(path, names, rows, kind="class"):
    labels = [list(names).index(name) for name in rows] if kind == "class" else rows
    features = Features(image=ImageFeature(), label=ClassLabel(names=list(names))) if kind == "class" else None
    columns = {"image": [picture(NUMBERS[name]) for name in rows], "label": labels}
    path.parent.mkdir(exist_ok=True)
    data = Dataset.from_dict(columns, features=features)
    (data if features else data.cast_column("image", ImageFeature())).to_parquet(path)


def test_parquet_files_keep_their_own_names(tmp_path):
    parquet(tmp_path / "d/train-00000-of-00002.parquet", ["ant", "bee", "cat"], ["ant", "bee", "cat"])
    parquet(tmp_path / "d/train-00001-of-00002.parquet", ["cat", "bee", "ant"], ["cat", "ant"])
    parquet(tmp_path / "d/val.parquet", ["bee", "cat"], ["cat", "bee"])
    parquet(tmp_path / "d/test.parquet", [], ["cat", "ant"], kind="text")
    data = load_classification_dataset(tmp_path / "d")
    assert {name: len(split) for name, split in data.items()} == {"train": 5, "validation": 2, "test": 2}
    for split in data.values():
        assert named_colours(split) <= {(name, COLOURS[number]) for name, number in NUMBERS.items()}


@pytest.mark.parametrize("kind", ["str", "category", "large_string"])
def test_columns_of_pandas_and_polars(tmp_path, kind):
    import pyarrow as pa
    import pyarrow.parquet as pq

    parquet(tmp_path / "x.parquet", [], ["ant", "bee"] * 4, kind="text")
    table = pq.read_table(tmp_path / "x.parquet").replace_schema_metadata(None)
    labels = table["label"].to_pylist()
    label = {"category": pa.array(labels).dictionary_encode(), "large_string": pa.array(labels, pa.large_string())}
    if kind == "str":
        frame = pd.DataFrame({"image": table["image"].to_pylist(), "label": labels})
        frame.to_parquet(tmp_path / "x.parquet")
    else:
        pq.write_table(table.set_column(1, "label", label[kind]), tmp_path / "x.parquet")
    data = load_classification_dataset(tmp_path / "x.parquet")
    assert data["train"].features["label"].names == ["ant", "bee"]


def test_a_parquet_file_of_no_split_is_named(tmp_path):
    for name in ("train", "extra"):
        parquet(tmp_path / f"d/{name}.parquet", ["ant", "bee"], ["ant", "bee"])
    with pytest.raises(ValueError, match=r"1 of its 2 parquet files are of no split, such as extra.parquet"):
        read_splits(tmp_path / "d")


@settings(max_examples=40, deadline=None)
@given(words=st.lists(st.sampled_from([*SPLIT_WORDS, "birds", "x1"]), min_size=1, max_size=6, unique=True))
def test_every_parquet_file_is_used_or_named(tmp_path_factory, words):
    folder = tmp_path_factory.getbasetemp()
    files = [folder / f"{word}-2.parquet" for word in words]
    if {SPLIT_WORDS.get(word) for word in words} > {None}:
        with pytest.raises(ValueError, match="of no split"):
            split_parquet_files(folder, files)
    else:
        found = [file for part in split_parquet_files(folder, files).values() for file in part]
        assert sorted(found) == sorted(map(str, files))


def test_a_path_with_signs_of_patterns(tmp_path):
    root = tmp_path / "b*[1]?"
    parquet(root / "train.parquet", ["ant", "bee"], ["ant", "bee"] * 5)
    assert glob.escape(str(root)) != str(root)
    assert len(read_splits(root)["train"]) == len(read_splits(root / "train.parquet")["train"]) == 10


def test_what_save_to_disk_wrote_is_read(tmp_path):
    data = Dataset.from_dict({"image": [picture(i % 2) for i in range(10)], "label": ["a", "b"] * 5})
    data.save_to_disk(tmp_path / "d")
    assert len(load_classification_dataset(tmp_path / "d")["train"]) == 8
