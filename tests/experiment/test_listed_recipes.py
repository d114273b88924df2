"""ImageNet-LT from its split files and iNaturalist by its `category`, in their layouts, on generated images."""

import pytest
from test_recipes import SMALL, coloured, named, rows, run, to_folder  # noqa: F401

from clp_hf.data.scenarios.split_files import listed_splits
from clp_hf.data.sources import read_splits

WORDNET = ("n01440764", "n01443537", "n01484850")
COUNTS = {"train": (24, 12, 6), "val": (4, 4, 4), "test": (3, 3, 3)}
FLAGS = (*SMALL, "--meta_samples", "1", "--max_steps", "2")


@pytest.fixture
def published(tmp_path):
    """Folders `train` and `val` of ImageNet, and the split files; the images of `val` are those of the test split."""
    splits = tmp_path / "splits"
    splits.mkdir()
    number = 0
    for split, sizes in COUNTS.items():
        lines = []
        for label, size in enumerate(sizes):
            for image in coloured(8, seed=number)["img"][: min(size, 8)] * (1 + size // 9):
                if len([line for line in lines if line.endswith(f" {label}")]) == size:
                    break
                number += 1
                name = f"val/ILSVRC2012_val_{number:08d}.JPEG"
                if split != "test":
                    name = f"train/{WORDNET[label]}/{WORDNET[label]}_{number}.JPEG"
                path = tmp_path / "imagenet" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                image.save(path, "JPEG")
                lines.append(f"{name} {label}")
        (splits / f"ImageNet_LT_{split}.txt").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_imagenet_lt(run, published, caplog):  # noqa: F811
    flags = ("--split_folder", str(published / "splits"), "--dataset_name", str(published / "imagenet"), *FLAGS)
    output, results = run("imagenet_lt", *flags)
    assert [rows(output)[name] for name in WORDNET] == ["24", "12", "6"]
    assert "checkpoint by balanced_accuracy on 9 validation images" in output  # 12, less the meta set
    assert {"test_balanced_accuracy", "test_few_shot_accuracy"} <= set(results)
    told = "Not ImageNet-LT as published (Liu et al. 2019): the train split has 42 images (24, 12, 6), published"
    assert f"{told} 115,846 images (1,000 classes of 5 to 1,280)" in caplog.text


def test_by_the_names_of_the_hub(published):
    """Parquet files whose images are called as the Hub's are: an id, and the class once more behind it."""
    whole = listed_splits(published / "imagenet", published / "splits", read_splits)
    source = {
        name: coloured(14).select(range(size)).remove_columns("fine_label").rename_column("img", "image")
        for name, size in (("train", 42), ("validation", 9))
    }
    lines = {
        "train": (published / "splits" / "ImageNet_LT_train.txt").read_text().split()[::2],
        "validation": (published / "splits" / "ImageNet_LT_test.txt").read_text().split()[::2],
    }
    for name, paths in lines.items():
        keys = [path.rpartition("/")[2].replace(".JPEG", "_n99999999.JPEG") for path in paths]
        source[name] = source[name].add_column("file", keys)
    held = (published / "splits" / "ImageNet_LT_val.txt").read_text()
    with pytest.raises(ValueError, match=r"lacks 12 of the 12 images of the validation split file: n01440764_43, "):
        listed_splits(to_folder(published / "hub", **source), published / "splits", read_splits, id_column="file")
    (published / "splits" / "ImageNet_LT_val.txt").write_text(held.splitlines()[0].replace("_43.", "_1.") + "\n")
    found = listed_splits(published / "hub", published / "splits", read_splits, id_column="file")
    assert found["train"]["label"][:] == whole["train"]["label"][:]
    assert found["train"].features["label"].names == list(WORDNET)
    assert (len(found["validation"]), len(found["test"])) == (1, 9)


def test_what_is_wrong_with_split_files(published):
    folder, images = published / "splits", published / "imagenet"
    path = folder / "ImageNet_LT_val.txt"
    text = path.read_text()
    for damaged, message in (
        (text + "train/a.JPEG\n", r"line 13: 'train/a.JPEG' is not `path label`"),
        (text + "train/a.JPEG one\n", "line 13"),
        ("\n", "lists no images"),
        (text + "train/gone.JPEG 0\n", r"lacks 1 of the 13 images of the validation split file: train/gone.JPEG"),
    ):
        path.write_text(damaged)
        with pytest.raises(ValueError, match=message):
            listed_splits(images, folder, read_splits)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"Get ImageNet_LT_val.txt \(https"):
        listed_splits(images, folder, read_splits)


def test_inaturalist(run, tmp_path, caplog):  # noqa: F811
    species = ["Aves", "Insecta", "Plantae"]
    splits = {
        name: named(size, species, seed).rename_column("label", "category")
        for name, size, seed in (("train", 13, 0), ("validation", 3, 1))
    }
    folder = to_folder(tmp_path / "inaturalist", **splits)
    output, results = run("inaturalist", "--dataset_name", folder, *FLAGS)
    assert rows(output)["Aves"] == "12"  # one is in the meta set
    assert "no checkpoint was selected" in output
    assert "Validation and test are the same images" in caplog.text
    assert "published 437,513 images (8,142 classes of 2 to 1,000)" in caplog.text
    assert "test_balanced_accuracy" in results
    with pytest.raises(ValueError, match="Which copy of iNaturalist 2018"):
        run("inaturalist", *FLAGS)
