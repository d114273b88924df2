"""Every scenario's recipe end to end on tiny generated data, in this process."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features
from datasets import Image as ImageFeature
from PIL import Image

RECIPES = Path(__file__).parents[1] / "recipes"
TINY = [
    "--num_train_epochs", "1", "--per_device_train_batch_size", "16", "--meta_batch_size", "8", "--use_cpu", "true",
    "--disable_tqdm", "true", "--report_to", "none",
]  # fmt: skip


def coloured(per_class, classes=3, size=16, seed=0):
    """Noisy images, each class of a colour of its own, under the column names of CIFAR-100 on the Hub."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), per_class)
    pixels = rng.normal(0, 40, (len(labels), size, size, 3)) + 200 * np.eye(3)[labels % 3][:, None, None]
    images = [Image.fromarray(image) for image in pixels.clip(0, 255).astype(np.uint8)]
    names = ClassLabel(names=[f"class_{label}" for label in range(classes)])
    return Dataset.from_dict(
        {"img": images, "fine_label": labels}, features=Features(img=ImageFeature(), fine_label=names)
    )


@pytest.fixture(scope="session")
def tiny_cifar(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cifar")
    for name, split in DatasetDict(train=coloured(60), test=coloured(10, seed=1)).items():
        split.to_parquet(folder / f"{name}-00000-of-00001.parquet")
    return str(folder)


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run a recipe with these flags; its printed output and its metrics."""

    def run(recipe, *flags):
        monkeypatch.syspath_prepend(str(RECIPES))
        monkeypatch.setattr(sys, "argv", [recipe, *TINY, "--output_dir", str(tmp_path / "run"), *flags])
        importlib.import_module(recipe).main()
        return capsys.readouterr().out, json.loads((tmp_path / "run" / "all_results.json").read_text())

    return run


def rows(output):
    """The first column of the table, and its training counts."""
    table = output[output.index("| accuracy, %") :].splitlines()[2:]
    return {cells[1].strip(): cells[2].strip() for cells in (line.split("|") for line in table) if len(cells) > 2}


def test_cifar_longtail(run, tiny_cifar):
    flags = ("--dataset_name", tiny_cifar, "--imbalance_ratio", "9", "--meta_samples", "2")
    output, results = run("cifar_longtail", *flags, "--model_name_or_path", "cifar_resnet20", "--image_size", "16")
    assert (
        "cifar_resnet20, 269,267 parameters; checkpoint by accuracy on 12 validation images. Test error: clp" in output
    )
    found = rows(output)
    assert [found[f"class_{label}"] for label in range(3)] == ["54", "18", "6"]
    assert {"medium-shot classes", "few-shot classes (< 20)"} <= set(found)
    assert {"test_few_shot_accuracy", "test_accuracy_class_class_2", "eval_accuracy"} <= set(results)


def test_cifar_longtail_refuses_another_split(run, tiny_cifar):
    with pytest.raises(ValueError, match="expected 0123"):
        run("cifar_longtail", "--dataset_name", tiny_cifar, "--imbalance_ratio", "9", "--meta_samples", "2",
            "--model_name_or_path", "cifar_resnet20", "--index_hash", "0123")  # fmt: skip


@pytest.mark.parametrize("noise", [("flip", "meta_lp"), ("uniform", "erm")])
def test_cifar_noisy(run, tiny_cifar, noise):
    flags = ("--dataset_name", tiny_cifar, "--noise", noise[0], "--method", noise[1], "--meta_images", "6")
    output, results = run("cifar_noisy", *flags, "--model_name_or_path", "cifar_resnet20", "--image_size", "16")
    assert ('Similar classes: {"class_0": ["class_1", "class_2"]' in output) == (noise[0] == "flip")
    assert "on 12 validation images" in output
    assert 0 <= results["test_accuracy"] <= 1


def test_a_meta_set_that_takes_all_is_refused(run, tiny_cifar):
    with pytest.raises(
        ValueError, match="out of 18 images leaves none of class class_0, class_1, class_2 in its split"
    ):
        run(
            "cifar_noisy", "--dataset_name", tiny_cifar, "--model_name_or_path", "cifar_resnet20", "--meta_images", "18"
        )
