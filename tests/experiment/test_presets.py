"""`--preset`: what it sets, what is stronger, and that a run has it."""

import importlib
import json
import sys
from dataclasses import fields

import pytest
import yaml
from test_recipes import RECIPES, TINY, coloured, to_folder

from clp_hf import CLPTrainingArguments
from clp_hf.data.embedded import embedded_birds
from clp_hf.experiment import METHODS, PAPER, DataArguments, ModelArguments, configured
from clp_hf.experiment.arguments import read_arguments
from clp_hf.experiment.help import HelpShown
from clp_hf.experiment.launch import run_here
from clp_hf.experiment.presets import settled
from clp_hf.hub.record import RunRecord

SCENARIOS = (
    "waterbirds", "celeba", "metashift", "cifar_longtail", "cifar_noisy", "imagenet_lt", "inaturalist", "imagenet_glt",
    "coco_glt",
)  # fmt: skip
SMALL = ("--model_name_or_path", "cifar_resnet20", "--image_size", "16")


@pytest.fixture
def recipe(monkeypatch):
    monkeypatch.syspath_prepend(str(RECIPES))
    return importlib.import_module


@pytest.fixture
def read(recipe, monkeypatch, tmp_path):
    """The arguments of a recipe with these flags: by name, those of training as they are, and those that were given."""

    def read(name, *flags):
        monkeypatch.setattr(sys, "argv", [name, *flags])
        module = recipe(name)
        classes = (module.RecipeArguments, DataArguments, ModelArguments, CLPTrainingArguments)
        parts, given = read_arguments(classes, "", module.DEFAULTS | {"use_cpu": True}, module.PRESETS)
        return {item.name: getattr(part, item.name) for part in parts for item in fields(part)}, parts[-1], given

    return read


def required(name):
    return ("--split_folder", "splits") if name.endswith(("_glt", "_lt")) else ()


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_recipe_has_the_paper_and_every_method_goes_with_it(recipe, read, name):
    found, training, given = read(name, "--preset", "paper", *required(name))
    preset, defaults = settled(recipe(name).PRESETS["paper"], found), recipe(name).DEFAULTS
    assert {key: preset[key] for key in PAPER} == PAPER
    assert {key: found[key] for key in preset} == preset
    left = {key: value for key, value in defaults.items() if key not in preset}
    assert {key: found[key] for key in left} == left
    assert set(given) == {"preset"} | ({"split_folder"} if required(name) else set())
    for settings in METHODS.values():
        configured(training, settings)


def test_the_papers_numbers(read):
    birds = read("waterbirds", "--preset", "paper")[0]
    assert (birds["learning_rate"], birds["per_device_train_batch_size"], birds["weight_decay"]) == (1e-3, 16, 1e-4)
    assert (birds["meta_split"], birds["meta_samples"], birds["image_size"]) == ("train", 10, 224)
    assert "resnet50" in birds["model_name_or_path"]
    tail = read("cifar_longtail", "--preset", "paper")[0]
    assert (tail["learning_rate"], tail["weight_decay"], tail["meta_split"]) == (0.1, 5e-4, "validation")
    assert [fraction * tail["num_train_epochs"] for fraction in tail["lr_decay_at"]] == [120, 160]
    assert (tail["model_name_or_path"], tail["meta_samples"]) == ("cifar_resnet32", 10)
    assert (tail["validation_fraction"], tail["load_best_model_at_end"]) == (0.0, False)
    noisy = read("cifar_noisy", "--preset", "paper")[0]
    assert (noisy["meta_images"], noisy["weight_decay"], noisy["per_device_train_batch_size"]) == (1000, 1e-4, 128)
    assert (noisy["model_name_or_path"], noisy["num_train_epochs"]) == ("cifar_resnet32", 60)
    for flags in ((), ("--preset", "paper")):
        glt = read("imagenet_glt", *flags, *required("imagenet_glt"))[0]
        assert (glt["meta_clusters"], glt["meta_samples"], glt["per_device_train_batch_size"]) == (6, 10, 256)
        assert (glt["model_name_or_path"], glt["learning_rate"]) == ("resnext50_32x4d", 0.1)


def test_what_depends_on_another_option(read, tmp_path, recipe, capsys):
    found = read("cifar_noisy", "--preset", "paper", "--noise", "uniform")[0]
    assert (found["model_name_or_path"], found["weight_decay"], found["num_train_epochs"]) == ("wrn28_10", 5e-4, 40)
    assert [round(share * found["num_train_epochs"]) for share in found["lr_decay_at"]] == [36, 38]
    found = read("cifar_noisy", "--noise", "uniform", "--model_name_or_path", "cifar_resnet20", "--preset", "paper")[0]
    assert (found["model_name_or_path"], found["weight_decay"]) == ("cifar_resnet20", 5e-4)
    path = tmp_path / "settings.yaml"
    path.write_text(yaml.safe_dump({"preset": "paper", "noise": "uniform", "num_train_epochs": 3}))
    found = read("cifar_noisy", str(path))[0]
    assert (found["model_name_or_path"], found["num_train_epochs"]) == ("wrn28_10", 3)
    found = read("cifar_noisy", str(path), "--noise", "flip")[0]
    assert (found["model_name_or_path"], found["weight_decay"]) == ("cifar_resnet32", 1e-4)
    with pytest.raises(HelpShown):
        run_here("cifar_noisy", ["--preset", "paper", "--noise", "uniform", "--help"], "clp-hf train cifar_noisy")
    assert "(default: wrn28_10)" in " ".join(capsys.readouterr().out.split())  # however wide the terminal is


def test_without_it_nothing_changes(recipe, read):
    found = read("waterbirds")[0]
    assert {key: found[key] for key in recipe("waterbirds").DEFAULTS} == recipe("waterbirds").DEFAULTS
    assert (found["preset"], found["perturbation_optim"]) == (None, "adamw")


def test_a_flag_is_stronger(read):
    found, _, given = read("waterbirds", "--saliency_weight", "0.2", "--preset=paper", "--freeze_batch_norm", "true")
    assert (found["saliency_weight"], found["freeze_batch_norm"], found["perturbation_bound"]) == (0.2, True, 0.0)
    assert given == {"preset": "paper", "saliency_weight": 0.2, "freeze_batch_norm": True}


def test_in_a_settings_file(read, tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text(yaml.safe_dump({"preset": "paper", "meta_samples": 3, "perturbation_optim": "adamw"}))
    found = read("waterbirds", str(path))[0]
    assert (found["meta_samples"], found["perturbation_optim"]) == (3, "adamw")
    assert (found["perturb_meta_logits"], found["meta_split"], found["image_size"]) == (True, "train", 224)


@pytest.mark.parametrize("in_a_file", [False, True])
def test_one_that_there_is_not(read, tmp_path, in_a_file):
    path = tmp_path / "settings.yaml"
    path.write_text("preset: papr")
    with pytest.raises(ValueError, match=r"There is no preset 'papr'\. Did you mean 'paper'\? Presets of this recipe"):
        read("waterbirds", *([str(path)] if in_a_file else ["--preset", "papr"]))


# ---- runs ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def run(recipe, monkeypatch, tmp_path):
    """Run a recipe with the preset: its record."""

    def run(name, *flags):
        flags = [*TINY, *SMALL, "--preset", "paper", "--max_steps", "2", "--output_dir", str(tmp_path / "run"), *flags]
        monkeypatch.setattr(sys, "argv", [name, *flags])
        recipe(name).main()
        assert "test_accuracy" in json.loads((tmp_path / "run" / "all_results.json").read_text())
        return RunRecord.load(tmp_path / "run")

    return run


def has_the_papers_method(record):
    settings = record.settings["method"]
    assert {key: settings[key] for key in PAPER} == PAPER


@pytest.mark.parametrize(
    ("name", "flags"), [("cifar_longtail", ("--imbalance_ratio", "3")), ("cifar_noisy", ("--meta_images", "6"))]
)
def test_cifar(run, tmp_path, caplog, name, flags):
    folder = to_folder(tmp_path / "data", train=coloured(60), test=coloured(4, seed=1))
    record = run(name, "--dataset_name", folder, "--meta_samples", "2", *flags)
    has_the_papers_method(record)
    assert "validation split" in record.facts["meta_source"]
    assert {"train", "meta set"} <= set(record.masks)  # boxes, for the saliency of both losses
    assert record.images["test images"] == record.images["validation images"] == dict.fromkeys(record.label_names, 2)
    if name == "cifar_longtail":  # a tail of every training image
        assert list(record.images["train images"].values()) == [60, 34, 20]
    assert sum(record.images["train images"].values()) == {"cifar_longtail": 114, "cifar_noisy": 180}[name]
    assert record.selection["metric"] is None  # by the test split nothing is selected
    assert "Validation and test are the same images" in caplog.text
    assert "Not CIFAR-10 as published (Krizhevsky 2009): the train split has 180 images (60, 60, 60)" in caplog.text
    trained = record.settings["training"]
    assert (trained["learning_rate"], trained["per_device_train_batch_size"]) == (0.1, 16)  # the flag's batches


def test_waterbirds(run, tmp_path):
    birds = embedded_birds(n_train=80, n_validation=16, n_test=16, image_size=32, correlation=0.75)
    record = run("waterbirds", "--dataset_name", to_folder(tmp_path / "data", **birds), "--meta_samples", "2")
    has_the_papers_method(record)
    assert "train split, 2 of every group" in record.facts["meta_source"]
    assert record.settings["data and model"]["freeze_batch_norm"] is False
    trained = record.settings["training"]
    assert (trained["lr_scheduler_type"], trained["learning_rate"], trained["weight_decay"]) == ("constant", 1e-3, 1e-4)
