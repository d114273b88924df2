"""Every scenario's recipe end to end on tiny generated data, in this process."""

import importlib
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features
from datasets import Image as ImageFeature
from PIL import Image

from clp_hf.data.scenarios.glt import BENCHMARKS

RECIPES = Path(__file__).parents[2] / "recipes"
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


def test_cifar_longtail(run, tiny_cifar, tmp_path):
    flags = ("--dataset_name", tiny_cifar, "--imbalance_ratio", "9", "--meta_samples", "2")
    output, results = run("cifar_longtail", *flags, "--model_name_or_path", "cifar_resnet20", "--image_size", "16")
    assert (
        "cifar_resnet20, 269,267 parameters; checkpoint by accuracy on 12 validation images. Test error: clp" in output
    )
    found = rows(output)
    assert [found[f"class_{label}"] for label in range(3)] == ["54", "18", "6"]
    assert {"medium-shot classes", "few-shot classes (< 20)"} <= set(found)
    card = (tmp_path / "run" / "README.md").read_text()
    assert "clp_hf by causal logit perturbation (CLP).\n" in card  # from no other model
    assert "import clp_hf.networks  # registers" in card
    assert {"test_few_shot_accuracy", "test_accuracy_class_class_2", "eval_accuracy"} <= set(results)


def test_the_final_table_names_its_split_and_what_was_really_selected(run, tiny_cifar):
    flags = ("--dataset_name", tiny_cifar, "--imbalance_ratio", "9", "--meta_samples", "2", "--image_size", "16")
    flags = (*flags, "--model_name_or_path", "cifar_resnet20", "--method", "erm")
    output, _ = run("cifar_longtail", *flags)
    assert "\n| accuracy, % (test) " in output
    assert re.search(r"\nerm: step \d+ of \d+, with the highest validation accuracy, 0\.\d+\n", output)
    output, _ = run("cifar_longtail", *flags, "--load_best_model_at_end", "false")
    assert "no checkpoint was selected. Test error: erm" in output
    assert re.search(r"\nerm: step (\d+) of \1, not selected\n", output)


def test_cifar_longtail_refuses_another_split(run, tiny_cifar):
    with pytest.raises(ValueError, match="expected 0123"):
        run("cifar_longtail", "--dataset_name", tiny_cifar, "--imbalance_ratio", "9", "--meta_samples", "2",
            "--model_name_or_path", "cifar_resnet20", "--index_hash", "0123")  # fmt: skip


@pytest.mark.parametrize("noise", [("flip", "meta_lp"), ("uniform", "erm")])
def test_cifar_noisy(run, tiny_cifar, noise):
    flags = ("--dataset_name", tiny_cifar, "--noise", noise[0], "--method", noise[1], "--meta_images", "6")
    flags = (*flags, "--max_train_samples", "40")
    output, results = run("cifar_noisy", *flags, "--model_name_or_path", "cifar_resnet20", "--image_size", "16")
    assert ('Similar classes: {"class_0": ["class_1", "class_2"]' in output) == (noise[0] == "flip")
    assert "on 12 validation images" in output
    assert sum(int(rows(output)[f"class_{label}"]) for label in range(3)) == 40
    assert 0 <= results["test_accuracy"] <= 1


def test_training_on_no_image_is_refused(run, tiny_cifar):
    with pytest.raises(ValueError, match="max_train_samples is 0; expected 1 or more"):
        run("cifar_noisy", "--dataset_name", tiny_cifar, *SMALL, "--max_train_samples", "0", "--meta_images", "6")


def test_a_meta_set_that_takes_all_is_refused(run, tiny_cifar):
    with pytest.raises(ValueError, match="of the 18 images of the validation split leaves none of class class_0"):
        run(
            "cifar_noisy", "--dataset_name", tiny_cifar, "--model_name_or_path", "cifar_resnet20", "--meta_images", "18"
        )


def grouped(per_group, **columns):
    """Images of two classes × two attributes; the columns are named by the caller."""
    data = coloured(per_group, classes=4)
    groups = np.asarray(data["fine_label"])
    data = data.remove_columns("fine_label").rename_column("img", "image")
    for name, values in columns.items():
        data = data.add_column(name, [values[group] for group in groups])
    return data


def to_folder(folder, **splits):
    folder.mkdir()
    for name, split in splits.items():
        split.to_parquet(folder / f"{name}-00000-of-00001.parquet")
    return str(folder)


SMALL = ("--model_name_or_path", "cifar_resnet20", "--image_size", "16", "--freeze_batch_norm", "false")


def test_celeba(run, tmp_path):
    columns = {"Blond_Hair": [False, False, True, True], "Male": [False, True, False, True], "Young": [True] * 4}
    splits = {name: grouped(n, **columns) for name, n in (("train", 12), ("valid", 4), ("test", 4))}
    folder = to_folder(tmp_path / "celeba", **splits)
    output, results = run("celeba", "--dataset_name", folder, *SMALL, "--meta_samples", "2")
    found = rows(output)
    assert found["blond_on_woman"] == "10"
    assert "test_accuracy_group_dark_on_man" in results
    assert "checkpoint by worst_group_accuracy on 16 validation images" in output


def test_metashift(run, tmp_path):
    columns = {"label": ["cat", "cat", "dog", "dog"], "attribute": ["indoor", "outdoor"] * 2}
    splits = {name: grouped(n, **columns) for name, n in (("train", 12), ("test", 4))}
    folder = to_folder(tmp_path / "metashift", **splits)
    output, results = run("metashift", "--dataset_name", folder, *SMALL, "--meta_samples", "2")
    assert {"cat_indoor", "dog_outdoor", "worst group"} <= set(rows(output))
    assert "test_worst_group_accuracy" in results


def named(per_class, names, seed=0):
    """`coloured` under the column names of parquet files of CIFAR-10 and MNIST, its classes called so."""
    data = coloured(per_class, classes=len(names), seed=seed).rename_columns({"img": "image", "fine_label": "label"})
    return data.cast_column("label", ClassLabel(names=names))


@pytest.mark.parametrize(
    ("recipe", "own"), [("cifar_longtail", ["--imbalance_ratio", "9"]), ("cifar_noisy", ["--noise", "uniform"])]
)
def test_training_images_of_cifar_have_boxes(run, tiny_cifar, tmp_path, recipe, own):
    """Without which `train_infills` refuses to train."""
    flags = ["--dataset_name", tiny_cifar, "--model_name_or_path", "cifar_resnet20", "--image_size", "16"]
    flags += ["--method", "erm", "--train_infills", "mix_rand", "--meta_samples", "2", "--meta_images", "6"]
    run(recipe, *flags, *own)
    card = (tmp_path / "run" / "README.md").read_text()
    assert "stood before another background, made by: mix_rand" in card


def test_dominoes(run, tmp_path):
    names = ["airplane", "automobile", "truck"]
    objects = to_folder(tmp_path / "cifar10", train=named(50, names), test=named(10, names, seed=1))
    splits = {name: named(n, ["0", "1", "2"], seed=n) for name, n in (("train", 15), ("validation", 4), ("test", 3))}
    digits = to_folder(tmp_path / "mnist", **splits)
    output, results = run(
        "dominoes", "--dataset_name", objects, "--digits", digits, "--n_train", "80", "--n_validation", "20",
        "--n_test", "20", "--correlation", "0.9", *SMALL, "--image_size", "32", "--meta_samples", "2",
        "--per_device_eval_batch_size", "8",
    )  # fmt: skip
    found = rows(output)
    groups = {"automobile_0": "36", "automobile_1": "4", "truck_0": "4", "truck_1": "36"}
    assert {name: found[name] for name in groups} == groups
    assert "checkpoint by worst_group_accuracy on 12 validation images" in output  # 20, less the meta set
    assert {f"test_accuracy_group_{name}" for name in groups} <= set(results)


def test_dominoes_whose_colour_lies(run, tmp_path):
    names = ["automobile", "truck"]
    objects = to_folder(tmp_path / "cifar10", train=named(55, names), test=named(10, names, seed=1))
    digits = to_folder(tmp_path / "mnist", train=named(50, ["0", "1"]), test=named(10, ["0", "1"], seed=1))
    output, results = run(
        "dominoes", "--dataset_name", objects, "--digits", digits, "--n_train", "80", "--n_validation", "20",
        "--n_test", "20", "--correlation", "0.9", *SMALL, "--image_size", "32", "--meta_samples", "2",
        "--spurious", "colour", "--counterfactual_infills", "colour", "--factual_infills", "colour", "mix_rand",
        "--train_infills", "colour",
    )  # fmt: skip
    found = rows(output)
    groups = {"automobile_hue_0": "36", "automobile_hue_180": "4", "truck_hue_0": "4", "truck_hue_180": "36"}
    assert {name: found[name] for name in groups} == groups
    assert "were changed, each by one of: colour" in (tmp_path / "run" / "README.md").read_text()
    assert {f"test_accuracy_group_{name}" for name in groups} <= set(results)


def test_dominoes_that_need_more_objects_than_there_are(run, tmp_path):
    names = ["automobile", "truck"]
    objects = to_folder(tmp_path / "cifar10", train=named(20, names), test=named(10, names, seed=1))
    digits = to_folder(tmp_path / "mnist", train=named(5, ["0", "1"]), test=named(3, ["0", "1"], seed=1))
    with pytest.raises(ValueError, match=r"Too few bottom images, each is used once.*'truck \(train\)': '16 of 4000'"):
        run("dominoes", "--dataset_name", objects, "--digits", digits, *SMALL)


@pytest.mark.parametrize("protocol", ["alt", "glt"])
def test_cifar_superclasses(run, tmp_path, protocol):
    def superclasses(per_class, seed):
        data = named(per_class, ["bee", "oak", "ant", "elm"], seed)
        coarse = [("insect", "tree")[label % 2] for label in data["label"]]
        return data.add_column("coarse_label", coarse)

    folder = to_folder(tmp_path / "cifar100", train=superclasses(40, 0), test=superclasses(6, 1))
    output, results = run(
        "cifar_superclasses", "--dataset_name", folder, "--protocol", protocol, "--attribute_imbalance", "9",
        "--class_imbalance", "4", "--image_size", "16", "--meta_samples", "2",
    )  # fmt: skip
    found = rows(output)
    sizes = {"alt": ["36", "36", "4", "4"], "glt": ["36", "9", "4", "1"]}[protocol]
    assert [found[name] for name in ("bee", "oak", "ant", "elm")] == sizes
    assert "checkpoint by accuracy on 8 validation images. Test error: meta_lp" in output  # 16, less the meta set
    assert {"test_worst_group_accuracy", "test_accuracy_class_tree", "test_accuracy_group_elm"} <= set(results)


@pytest.mark.parametrize("recipe", ["imagenet_glt", "coco_glt"])
def test_glt(run, tmp_path, recipe):
    images = grouped(12, label=[0, 0, 1, 1], key=[""] * 4).remove_columns("key")
    keys = [f"n00000001_{row}" for row in range(len(images))]
    folder = to_folder(tmp_path / "images", train=images.add_column("key", keys))
    classes = dict(zip(keys, images["label"][:], strict=True))

    def split(start):
        label = {key: str(classes[key]) for key in keys[start::4]}
        return {"label": label, "attribute": {key: row % 3 for row, key in enumerate(label)}}

    content = {"id2cat": {"0": "fish", "1": "bird"}, "train": split(0), "val": split(1), "test_bbl": split(2)}
    benchmark = recipe.removesuffix("_glt")
    path = tmp_path / "splits" / BENCHMARKS[benchmark].files[0]
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(content))
    output, results = run(
        recipe, "--dataset_name", folder, "--split_folder", str(tmp_path / "splits"), "--id_column", "key", *SMALL,
        "--meta_samples", "1", "--meta_clusters", "2", "--meta_cluster_model", "cifar_resnet20",
    )  # fmt: skip
    assert "on 8 validation images" in output  # 12, less the meta set: two classes of two clusters
    assert {"fish", "bird"} <= set(rows(output))
    assert f"clp: mean precision {100 * results['test_macro_precision']:.2f} %" in output
