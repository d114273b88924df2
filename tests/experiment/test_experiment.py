"""The recipe end to end, as a user runs it: real subprocesses, tiny data and model."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hub_server import TOKEN, hub_server
from huggingface_hub import ModelCard
from transformers import AutoModelForImageClassification, pipeline

from clp_hf.data import embedded_birds

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "waterbirds.py"


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A folder of parquet files and a folder with a tiny timm model, and the flags of a run of seconds."""
    import timm

    from clp_hf.modeling import load_image_classifier

    folder = tmp_path_factory.mktemp("tiny")
    splits = embedded_birds(n_train=160, n_validation=48, n_test=48, image_size=32)
    for name, split in splits.items():
        (folder / "data").mkdir(exist_ok=True)
        split.to_parquet(folder / "data" / f"{name}-00000-of-00001.parquet")
    torch.manual_seed(0)
    model = load_image_classifier(timm.create_model("mobilenetv2_035", num_classes=2), image_size=32)
    model.save_pretrained(folder / "model")
    return [
        "--dataset_name", str(folder / "data"), "--model_name_or_path", str(folder / "model"), "--image_size", "32",
        "--num_train_epochs", "1", "--per_device_train_batch_size", "16", "--meta_samples", "2",
        "--disable_tqdm", "true", "--use_cpu", "true",
    ]  # fmt: skip


LAUNCH = ("-m", "accelerate.commands.launch", "--num_processes", "1")


def run_recipe(*flags, recipe=RECIPE, launcher=(), check=True, **variables):
    command = [sys.executable, *launcher, str(recipe), *flags]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", **variables}
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=check)


@pytest.mark.slow
def test_compare_trains_both_and_prints_one_table(tiny, tmp_path):
    done = run_recipe(*tiny, "--compare", "--output_dir", str(tmp_path), launcher=LAUNCH)
    table = done.stdout[done.stdout.index("| accuracy, %") :].splitlines()
    assert [title.strip() for title in table[0].split("|")[2:-1]] == ["train", "ERM", "CLP"]
    assert any("waterbird_on_land" in line for line in table)
    for method in ("erm", "clp"):
        results = json.loads((tmp_path / method / "all_results.json").read_text())
        assert {"test_accuracy", "test_worst_group_accuracy", "eval_worst_group_accuracy"} <= set(results)
        assert "test_accuracy_group_waterbird_on_land" in results
        model = AutoModelForImageClassification.from_pretrained(tmp_path / method)
        assert model.config.id2label == {0: "landbird", 1: "waterbird"}
        assert (tmp_path / method / "perturbation_network").exists() == (method == "clp")
        card = ModelCard.load(tmp_path / method / "README.md")
        scores = {result.metric_name: result.metric_value for result in card.data.eval_results}
        assert scores["Worst-group accuracy"] == pytest.approx(results["test_worst_group_accuracy"], abs=1e-4)
        assert ("taken out of the validation split, 2 of every group" in card.text) == (method == "clp")
        assert str(tmp_path) not in card.content
    classify = pipeline("image-classification", str(tmp_path / "clp"))
    image = embedded_birds(n_train=40, n_validation=40, n_test=40, image_size=32)["test"][0]["image"]
    assert {prediction["label"] for prediction in classify(image)} == {"landbird", "waterbird"}
    assert classify.image_processor.data_config["input_size"] == (3, 32, 32)
    assert classify.image_processor.data_config["interpolation"] == "bilinear"  # as in training and evaluation


@pytest.mark.slow
def test_settings_from_a_file_and_publishing(tiny, tmp_path):
    flags = dict(zip((flag.removeprefix("--") for flag in tiny[::2]), tiny[1::2], strict=True))
    types = {"image_size": int, "num_train_epochs": float, "per_device_train_batch_size": int, "meta_samples": int}
    settings = {name: types.get(name, str)(value) for name, value in flags.items()}
    settings |= {"use_cpu": True, "disable_tqdm": True, "method": "meta_lp", "output_dir": str(tmp_path / "run")}
    settings |= {"push_to_hub": True, "hub_model_id": "birds", "hub_token": TOKEN}
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    with hub_server() as hub:
        variables = {"HF_ENDPOINT": hub.endpoint, "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}
        run_recipe(str(tmp_path / "settings.json"), **variables)
        published = hub.repositories["tester/birds"]
    results = json.loads((tmp_path / "run" / "all_results.json").read_text())
    assert published.messages[-1] == "End of training"
    assert {"config.json", "model.safetensors", "perturbation_network/model.safetensors"} <= set(published.files)
    card = ModelCard(published.files["README.md"].decode())
    scores = {result.metric_name: result.metric_value for result in card.data.eval_results}
    assert scores["Worst-group accuracy"] == pytest.approx(results["test_worst_group_accuracy"], abs=1e-4)
    assert 'pipeline("image-classification", "tester/birds")' in card.text
    assert "Meta-LP" in card.text


@pytest.mark.slow
def test_hsfm_repairs_a_checkpoint(tiny, tmp_path):
    data_and_model = tiny[:6]
    flags = ("--epochs", "4", "--trials", "3", "--use_cpu", "true", "--output_dir", str(tmp_path / "run"))
    done = run_recipe(*data_and_model, *flags, recipe=ROOT / "recipes" / "hsfm.py")
    table = done.stdout[done.stdout.index("| accuracy, %") :].splitlines()
    assert [title.strip() for title in table[0].split("|")[2:-1]] == ["train", "before", "HSFM"]
    results = json.loads((tmp_path / "run" / "all_results.json").read_text())
    assert "test_worst_group_accuracy" in results
    before = AutoModelForImageClassification.from_pretrained(data_and_model[3]).state_dict()
    after = AutoModelForImageClassification.from_pretrained(tmp_path / "run").state_dict()
    assert {name.split(".")[-2] for name in after if not torch.equal(after[name], before[name])} <= {"classifier"}


def test_unreachable_hub_is_said_with_the_alternatives(tmp_path):
    failed = run_recipe("--dataset_name", "grodino/waterbirds", "--output_dir", str(tmp_path), check=False)
    assert failed.returncode != 0
    assert "work offline with a local folder, a parquet file or `embedded`" in failed.stderr
