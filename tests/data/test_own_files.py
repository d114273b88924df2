"""A row of a data set cannot pull in a file from elsewhere on the machine."""

import json
import os

import pytest
from datasets import Dataset, DatasetDict, Features, Value, load_dataset
from datasets import Image as ImageFeature
from PIL import Image

from clp_hf.data import EvalTransform, ImageClassificationDataset, load_classification_dataset
from clp_hf.data.sources import read_splits
from clp_hf.segmentation import MaskArguments, make_masks


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "private" / "me.png"
    path.parent.mkdir()
    Image.new("RGB", (8, 8), (1, 2, 3)).save(path)
    return path


def hostile(folder, path, column="image", kind="parquet"):
    """A data set of four rows, one of which names a path."""
    folder.mkdir(exist_ok=True)
    own = folder / "own.png"
    Image.new("RGB", (8, 8)).save(own)
    content = {"bytes": own.read_bytes(), "path": None}
    own.unlink()
    rows = {"image": [content] * 4, "label": ["a", "b"] * 2}
    rows[column] = [*[content] * 3, {"bytes": None, "path": str(path)}]
    kinds = {"bytes": Value("binary"), "path": Value("string")}
    features = Features(image=kinds, label=Value("string"), **({column: kinds} if column != "image" else {}))
    data = Dataset.from_dict(rows, features=features)  # not as images, which would be embedded on writing
    if kind == "parquet":
        data.to_parquet(folder / "train.parquet")
    else:
        data.save_to_disk(folder / "saved")
    return folder if kind == "parquet" else folder / "saved"


@pytest.mark.parametrize("column", ["image", "mask", "other"])
@pytest.mark.parametrize("kind", ["parquet", "saved"])
def test_a_path_outside_is_refused(tmp_path, secret, column, kind):
    folder = hostile(tmp_path / "d", secret, column, kind)
    with pytest.raises(ValueError, match=rf"column '{column}': a row names the file .*me.png.* outside"):
        load_classification_dataset(folder)
    with pytest.raises(ValueError, match="outside"):
        make_masks(MaskArguments(str(folder), output_dir=str(tmp_path / "out")))
    assert not (tmp_path / "out" / "data").exists()


def test_ways_around_are_refused(tmp_path, secret):
    inner = tmp_path / "d"
    inner.mkdir()
    os.symlink(secret, inner / "link.png")
    os.symlink(secret.parent, inner / "folder")
    for path in (inner / "link.png", inner / "folder" / "me.png", inner / ".." / "private" / "me.png", f"{inner}x.png"):
        with pytest.raises(ValueError, match="outside"):
            read_splits(hostile(inner, path))
    with pytest.raises(ValueError, match="outside"):
        read_splits(hostile(inner, f"file://{secret}"))


def test_an_image_folder_cannot_link_outside(tmp_path, secret):
    for name in ("a", "b"):
        (tmp_path / "d" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "d" / name / "1.png")
    os.symlink(secret, tmp_path / "d" / "a" / "2.png")
    with pytest.raises(ValueError, match=r"2.png.* outside"):
        read_splits(tmp_path / "d")


def test_a_path_inside_counts(tmp_path):
    folder = tmp_path / "d"
    data = read_splits(hostile(folder, folder / "own image.png"))
    Image.new("RGB", (8, 8), (9, 9, 9)).save(folder / "own image.png")
    splits = load_classification_dataset(data, validation_fraction=0.5)
    items = ImageClassificationDataset(splits["train"], EvalTransform((8, 8), (0,) * 3, (1,) * 3))
    assert len(items) == 2


def test_text_that_becomes_a_path(tmp_path, secret):
    (tmp_path / "d").mkdir()
    rows = [{"image": str(secret), "label": label} for label in "abab"]
    (tmp_path / "d" / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(ValueError, match="outside"):
        load_classification_dataset(tmp_path / "d")


def test_nested_paths_are_seen(tmp_path, secret):
    rows = {"image": [None], "more": [[{"bytes": None, "path": str(secret)}]]}
    kinds = {"bytes": Value("binary"), "path": Value("string")}
    (tmp_path / "d").mkdir()
    Dataset.from_dict(rows, features=Features(image=Value("binary"), more=[kinds])).to_parquet(
        tmp_path / "d" / "train.parquet"
    )
    with pytest.raises(ValueError, match="column 'more'"):
        read_splits(tmp_path / "d")


def test_a_table_loaded_by_hand_is_looked_through_too(tmp_path, secret):
    folder = hostile(tmp_path / "d", secret)
    split = load_dataset("parquet", data_files=str(folder / "train.parquet"), cache_dir=str(tmp_path / "c"))["train"]
    with pytest.raises(ValueError, match="outside"):
        load_classification_dataset(DatasetDict(train=split))
    with pytest.raises(ValueError, match="outside"):
        ImageClassificationDataset(
            split.cast_column("image", ImageFeature()), EvalTransform((8, 8), (0,) * 3, (1,) * 3)
        )


def test_paths_in_your_own_code_are_yours(secret):
    data = Dataset.from_dict({"image": [str(secret)] * 4, "label": ["a", "b"] * 2}).cast_column("image", ImageFeature())
    splits = load_classification_dataset(DatasetDict(train=data), validation_fraction=0.5)
    assert len(ImageClassificationDataset(splits["train"], EvalTransform((8, 8), (0,) * 3, (1,) * 3))) == 2
