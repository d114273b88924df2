"""clp-hf groups and clp-hf labels on a folder of pictures, and groups discovered in a recipe."""

import csv
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import TrainingArguments
from typer.testing import CliRunner

from clp_hf import CLPTrainingArguments
from clp_hf.cli import app
from clp_hf.data import load_classification_dataset
from clp_hf.discovery import Backbone
from clp_hf.experiment import DataArguments, Experiment, ModelArguments
from clp_hf.inspection import features as inspection

CLASSES = ("<b>crow", "duck")
WRONG = 7  # of the ducks


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Forty pictures a class: the place, blue or green, mostly goes with the class, the object is a square."""
    root = tmp_path_factory.mktemp("pictures") / "birds"
    for label, name in enumerate(CLASSES):
        (root / "train" / name).mkdir(parents=True)
        for index in range(40):
            rng = np.random.default_rng(100 * label + index)
            place = label if index >= 12 else 1 - label
            kind = 1 - label if (label, index) == (1, WRONG + 20) else label
            pixels = rng.integers(0, 30, (32, 32, 3))
            pixels[..., 1 + place] += 200
            pixels[10:22, 10:22] = (250, 250, 20) if kind else (10, 10, 10)
            Image.fromarray(pixels.astype(np.uint8)).save(root / "train" / name / f"{index:02}.png")
    return root


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    import timm

    from clp_hf.modeling import load_image_classifier

    path = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    load_image_classifier(timm.create_model("mobilenetv2_035", num_classes=2), image_size=32).save_pretrained(path)
    return str(path)


def run(*words):
    done = CliRunner().invoke(app, list(map(str, words)))
    assert done.exit_code == 0, done.output
    return done.output


def test_groups_are_written_so_that_a_recipe_reads_them(folder, model, tmp_path):
    output = tmp_path / "grouped"
    flags = ["--model_name_or_path", model, "--image_size", 32, "--by", "background", "--groups_per_class", 2]
    told = run("groups", folder, "--output_dir", output, *flags)
    assert "Groups discovered by background" in told
    train = load_classification_dataset(output, group_column="group")["train"]
    assert train.features["group"].names[0] == "<b>crow_on_background_of_<b>crow"
    group, files = np.asarray(train["group"]), np.asarray(train["label"])
    assert (group // 2 == files).all()
    assert len(set(group.tolist())) == 4
    page = (output / "groups.html").read_text()
    assert "&lt;b&gt;crow" in page
    assert "<b>" not in page
    assert "http" not in page.replace("http-equiv", "")
    assert re.search(r"<p>\d\d\.png</p>", page)
    assert f"then train with --dataset_name {output}" in told
    run("groups", folder, "--output_dir", output, *flags)  # its own folder it may replace


def test_data_of_others_are_not_overwritten(folder, model, tmp_path):
    (tmp_path / "data").mkdir()
    done = CliRunner().invoke(app, ["groups", str(folder), "--output_dir", str(tmp_path)])
    assert done.exit_code == 1
    assert "choose another --output_dir" in done.output


def test_the_list_of_suspects_names_file_and_class(folder, model, tmp_path):
    table = tmp_path / "list.csv"
    told = run("labels", folder, "--output", table, "--model_name_or_path", model, "--image_size", 32)
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert f"{len(rows)} of 80 labels are suspect" in told
    assert [int(row["rank"]) for row in rows] == list(range(1, len(rows) + 1))
    assert {row["label"] for row in rows} | {row["should_be"] for row in rows} <= set(CLASSES)
    assert all(row["label"] != row["should_be"] and row["file"].endswith(".png") for row in rows)
    suspicion = [float(row["suspicion"]) for row in rows]
    assert suspicion == sorted(suspicion, reverse=True)
    assert min([*suspicion, 1]) >= 0.5
    page = (tmp_path / "list.html").read_text()
    assert page.count("<img") >= len(rows)
    assert all(f"<p>{Path(row['file']).name}</p>" in page for row in rows)


def test_classes_that_nothing_divides_are_not_sent_to_training(tmp_path, model):
    for label, name in enumerate(CLASSES):
        (tmp_path / "plain" / name).mkdir(parents=True)
        for index in range(12):
            pixels = np.random.default_rng(index).integers(0, 30, (32, 32, 3), dtype=np.uint8)
            pixels[..., label] += 200
            Image.fromarray(pixels).save(tmp_path / "plain" / name / f"{index}.png")
    flags = ["--model_name_or_path", model, "--image_size", 32, "--by", "background", "--groups_per_class", 2]
    told = run("groups", tmp_path / "plain", *flags)
    assert "Every class is one group" in told
    assert "--by errors, or train without groups" in told
    assert "then train with" not in told


def experiment(folder, model, output, **settings):
    data = DataArguments(dataset_name=str(folder), image_size=32, groups="background", groups_per_class=2)
    args = CLPTrainingArguments(str(output), meta_samples=1, report_to=[], use_cpu=True, disable_tqdm=True, **settings)
    assert isinstance(args, TrainingArguments)
    return Experiment(data, ModelArguments(model), args)


def test_what_features_of_random_weights_tell_is_said(folder, model, tmp_path, caplog):
    experiment(folder, model, tmp_path / "a")
    Backbone.load(model, 32)
    assert "random weights" not in caplog.text
    experiment(folder, "cifar_resnet20", tmp_path / "b")
    assert "cifar_resnet20 starts from random weights" in caplog.text
    assert f"clp-hf groups {folder}, and train without --groups" in caplog.text
    for load in (Backbone.load, inspection.Backbone):
        caplog.clear()
        load("cifar_resnet20")
        assert "cifar_resnet20 starts from random weights" in caplog.text


def test_a_recipe_goes_by_the_groups_it_discovers_and_has_the_same_when_it_goes_on(
    folder, model, tmp_path, monkeypatch
):
    first = experiment(folder, model, tmp_path)
    assert len(first.group_names) == 4
    assert first.group_names[1] == "<b>crow_on_background_of_duck"
    assert first.train.group is not None
    assert first.validation.group is not None
    assert any("Groups discovered by background" in note for note in first.card_details.notes)
    monkeypatch.setattr("clp_hf.experiment.grouping.discover_groups", lambda *args: pytest.fail("discovered again"))
    again = experiment(folder, model, tmp_path)
    for split in ("train", "meta", "validation"):
        assert torch.equal(getattr(again, split).group, getattr(first, split).group)
    with pytest.raises(pytest.fail.Exception, match="discovered again"):
        experiment(folder, model, tmp_path, seed=3)
