"""A user's own data through the commands: classes keep their names from the folder to the published model."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict, Features, Value
from datasets import Image as ImageFeature
from PIL import Image
from transformers import AutoModelForImageClassification, pipeline

from clp_hf.data import ImageClassificationDataset
from clp_hf.experiment.evaluation import evaluate_checkpoint
from clp_hf.modeling import load_image_classifier
from clp_hf.segmentation import MaskArguments, make_masks

RECIPES = Path(__file__).parents[2] / "recipes"
TINY = [
    "--num_train_epochs", "1", "--per_device_train_batch_size", "8", "--meta_batch_size", "6", "--meta_samples", "2",
    "--model_name_or_path", "test_resnet", "--pretrained", "false", "--image_size", "32", "--use_cpu", "true",
    "--disable_tqdm", "true", "--report_to", "none", "--eval_steps", "4", "--save_steps", "4",
]  # fmt: skip
COLOURS = ((220, 30, 30), (30, 30, 220), (30, 200, 30))


def picture(colour, seed=0, size=32):
    """A coloured square before grey, and its mask."""
    pixels = np.random.default_rng(seed).integers(80, 100, (size, size, 3))
    mask = np.zeros((size, size), np.uint8)
    pixels[8:24, 8:24] = colour
    mask[8:24, 8:24] = 255
    return Image.fromarray(pixels.astype(np.uint8)), Image.fromarray(mask)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run a recipe with these flags, in this process."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))

    def run(recipe, *flags):
        monkeypatch.syspath_prepend(str(RECIPES))
        arguments = [*map(str, flags), "--output_dir", str(tmp_path / "run")]
        monkeypatch.setattr(sys, "argv", [recipe, *arguments])
        importlib.import_module(recipe).main()
        return tmp_path / "run"

    return run


def image_folder(root, *classes, images=14):
    for number, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for index in range(images):
            picture(COLOURS[number], index)[0].save(root / name / f"{index}.png")
    return root


@pytest.mark.parametrize("classes", [("gull", "sparrow"), ("Gull [juv]", "spatz über", "train")])
def test_from_a_folder_of_images_to_a_model_with_its_names(run, tmp_path, classes):
    data = image_folder(tmp_path / "my birds", *classes)
    make_masks(MaskArguments(str(data), output_dir=str(tmp_path / "masked")))
    out = run("waterbirds", *TINY, "--dataset_name", tmp_path / "masked", "--method", "meta_lp",
              "--evidence", "none", "--validation_fraction", "0.4")  # fmt: skip
    model = AutoModelForImageClassification.from_pretrained(out)
    assert [model.config.id2label[index] for index in range(len(classes))] == sorted(classes)
    card = (out / "README.md").read_text()
    assert all(name in card for name in classes)
    assert "landbird" not in card
    said = pipeline("image-classification", str(out))(picture(COLOURS[0])[0])
    assert {answer["label"] for answer in said} == set(classes)
    found = evaluate_checkpoint(str(out), str(data), split="train")
    assert set(found.images) == set(classes)


def groups(per_group, mask=None):
    rows = [(label, place) for label in (0, 1) for place in (0, 1) for _ in range(per_group)]
    pictures = [picture(COLOURS[label], index) for index, (label, _) in enumerate(rows)]
    columns = {
        "image": [image for image, _ in pictures],
        "label": [("landbird", "waterbird")[label] for label, _ in rows],
        "place": [("land", "water")[place] for _, place in rows],
    }
    features = {"image": ImageFeature(), "label": Value("string"), "place": Value("string")}
    if mask:
        columns["mask"] = [mask(found, index) for index, (_, found) in enumerate(pictures)]
        features["mask"] = ImageFeature()
    return Dataset.from_dict(columns, features=Features(features))


def write(folder, **splits):
    folder.mkdir()
    for name, split in splits.items():
        split.to_parquet(folder / f"{name}.parquet")
    return folder


def test_hsfm_matches_a_checkpoint_of_another_order_by_name(run, tmp_path):
    data = write(tmp_path / "d", train=groups(6), validation=groups(16), test=groups(4))
    torch.manual_seed(0)
    names = {0: "waterbird", 1: "landbird"}
    model = load_image_classifier("test_resnet", id2label=names, image_size=32, pretrained=False)
    images = torch.stack([torch.from_numpy(np.array(picture(c)[0])).permute(2, 0, 1) / 255 for c in COLOURS[:2]])
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(20):
        loss = torch.nn.functional.cross_entropy(model(pixel_values=images * 4 - 2).logits, torch.tensor([1, 0]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.save_pretrained(tmp_path / "model")
    before = evaluate_checkpoint(str(tmp_path / "model"), str(data)).metrics["accuracy"]
    out = run(
        "hsfm", "--model_name_or_path", tmp_path / "model", "--dataset_name", data, "--image_size", "32",
        "--use_cpu", "true", "--disable_tqdm", "true", "--support_size", "4", "--hard_size", "4", "--epochs", "2",
    )  # fmt: skip
    repaired = AutoModelForImageClassification.from_pretrained(out)
    assert repaired.config.id2label == names
    after = evaluate_checkpoint(str(out), str(data)).metrics["accuracy"]
    assert json.loads((out / "all_results.json").read_text())["test_accuracy"] == pytest.approx(after)
    assert after >= before == 1


def test_celebas_names_are_not_those_of_other_columns(run, tmp_path):
    split = groups(10).remove_columns(["label", "place"])
    flags = [index % 2 == 1 for index in range(len(split))]
    split = split.add_column("Smiling", flags).add_column("Male", [index % 4 > 1 for index in range(len(split))])
    data = write(tmp_path / "d", train=split, validation=split)
    out = run("celeba", *TINY, "--dataset_name", data, "--label_column", "Smiling", "--method", "erm")
    config = json.loads((out / "config.json").read_text())
    assert config["label_names"] == ["0", "1"]
    assert "0_on_woman" in (out / "README.md").read_text()


def test_masks_of_no_use_are_counted_and_said(run, tmp_path):
    def mask(found, index):
        return found if index % 4 else Image.new("L", found.size)

    data = write(tmp_path / "d", train=groups(6, mask), validation=groups(6, mask))
    out = run("waterbirds", *TINY, "--dataset_name", data, "--method", "erm")
    assert json.loads((out / "_run.json").read_text())["masks"]["train"]["empty"] == 6
    assert "Masks, train: 6 of 24 masks allow no causal augmentation: 6 are empty" in (out / "README.md").read_text()


def test_a_mask_is_read_once(run, tmp_path, monkeypatch):
    read, mask = [], ImageClassificationDataset._mask
    monkeypatch.setattr(ImageClassificationDataset, "_mask", lambda *given: read.append(given) or mask(*given))
    data = write(tmp_path / "d", **{name: groups(6, lambda found, _: found) for name in ("train", "validation")})
    run("waterbirds", *TINY, "--dataset_name", data, "--method", "erm")
    assert len(read) == 2 * 24


@pytest.mark.parametrize("value", [0, 255])
def test_masks_without_any_object_are_refused(run, tmp_path, value):
    def mask(found, index):
        return Image.new("L", found.size, value)

    data = write(tmp_path / "d", train=groups(6, mask), validation=groups(6, lambda found, index: found))
    with pytest.raises(ValueError, match=r"Masks, train: 24 of 24 .* Not one shows an object before a background"):
        run("waterbirds", *TINY, "--dataset_name", data)


def test_splits_of_any_name(run, tmp_path):
    """They have flags: `--train_split`, `--validation_split` and `--test_split`."""
    splits = {}
    for name, length in (("fold1", 12), ("fold2", 20), ("held", 8)):
        rows = [(index, label) for label in range(2) for index in range(length)]
        images = [picture(COLOURS[label], index)[0] for index, label in rows]
        splits[name] = Dataset.from_dict(
            {"image": images, "label": [("cat", "dog")[label] for _, label in rows]},
            features=Features(image=ImageFeature(), label=Value("string")),
        )
    DatasetDict(splits).save_to_disk(tmp_path / "data")
    flags = ["--train_split", "fold2", "--validation_split", "fold1", "--test_split", "held", "--method", "meta_lp"]
    folder = run("waterbirds", "--dataset_name", tmp_path / "data", *flags, *TINY)
    images = json.loads((folder / "_run.json").read_text())["images"]
    assert images == {
        "train images": {"cat": 20, "dog": 20},
        "validation images": {"cat": 10, "dog": 10},
        "test images": {"cat": 8, "dog": 8},
    }
