"""A user's own images: what is found, what follows from it, what is held out, and a run by the command."""

import json
import os
import re
import sys

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict
from PIL import Image

from clp_hf.data.holdout import split_validation
from clp_hf.data.sources import read_splits
from clp_hf.experiment import METHODS
from clp_hf.experiment.choosing import Found, check_meta_set, choose, more
from clp_hf.experiment.launch import main
from clp_hf.experiment.output_folder import check_output_folder, clear_output_folder, method_named

TINY = [
    "--model_name_or_path", "test_resnet", "--pretrained", "false", "--image_size", "32", "--num_train_epochs", "1",
    "--use_cpu", "true", "--disable_tqdm", "true", "--report_to", "none",
]  # fmt: skip
COLOURS = ((220, 30, 30), (30, 30, 220), (30, 200, 30))


def photos(root, images=100, classes=("Spatz über", "Ente")):
    rng = np.random.default_rng(0)
    for colour, name in zip(COLOURS, classes, strict=False):
        (root / name).mkdir(parents=True)
        for index in range(images):
            pixels = rng.integers(60, 120, (32, 32, 3), dtype=np.uint8)
            pixels[8:24, 8:24] = colour
            Image.fromarray(pixels).save(root / name / f"IMG_{index}.jpg")
    return root


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Run the recipe in this process; its metrics and what it said."""
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))

    def run(*flags):
        main(["classify", *TINY, "--output_dir", str(tmp_path / "run"), *map(str, flags)])
        return json.loads((tmp_path / "run" / "_run.json").read_text())

    return run


def refused(run, capsys, *flags):
    with pytest.raises(SystemExit, match="1"):
        run(*flags)
    return capsys.readouterr().err


def test_three_classes_of_few_images_a_method_of_ones_own_and_an_older_run(here, tmp_path, capsys):
    data = photos(tmp_path / "photos", 24, ("a", "b", "c"))
    record = here("--dataset_name", data)
    said = capsys.readouterr().out
    assert "Chosen: --method erm (" in said  # nine of each are held out, which leaves none for a meta set
    assert "10 validation images or more of every class, the smallest has 9 (a)" in said
    assert record["images"]["validation images"] == {"a": 9, "b": 9, "c": 9}
    assert record["settings"]["training"]["metric_for_best_model"] == "balanced_accuracy"
    error = refused(here, capsys, "--dataset_name", data, "--method", "clp")
    assert "holds a run of another method" not in error  # what is wrong with the data is said first
    assert "leaves fewer than 10 validation images of a 9, b 9, c 9 to select checkpoints by. None fits" in error
    own = ["--dataset_name", data, "--method", "clp", "--meta_split", "train", "--meta_samples", "3"]
    assert "holds a run of another method, erm, and files" in refused(here, capsys, *own)
    record = here(*own, "--overwrite_output_dir", "true")
    assert record["settings"]["method"]["evidence"] == ["bias"]
    assert (tmp_path / "run" / "perturbation_network").is_dir()
    here("--dataset_name", data, "--overwrite_output_dir", "true")
    assert not (tmp_path / "run" / "perturbation_network").exists()


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (["cats"], "images of one class only, of .'cats'.: at least two are needed"),
        (["cats/s1", "dogs/s1"], "every image lies in a folder called 's1'.*If cats, dogs are the classes"),
        (["cats/s1/x", "dogs"], "images lie at different depths"),
    ],
)
def test_folders_that_are_no_classes(here, tmp_path, capsys, paths, message):
    photos(tmp_path / "photos", 4, paths)
    error = refused(here, capsys, "--dataset_name", tmp_path / "photos")
    assert "\nError: " in f"\n{error}"
    assert re.search(message, error)


def test_folders_around_class_folders_are_told(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr("clp_hf.data.folders.logger.warning", said.append)
    photos(tmp_path / "photos", 2, ("2023/cat", "2024/cat", "2024/dog"))
    assert read_splits(tmp_path / "photos")["train"].features["label"].names == ["cat", "dog"]
    assert "one of 2 (cat, dog …); the folders around these, 2023, 2024, say nothing" in said[0]


def test_data_are_named(here, capsys):
    assert "Which images? Name them: --dataset_name path/to/folder. Read are: a folder with" in refused(here, capsys)


# ---- what follows from what is found ---------------------------------------------------------------------------------

BALANCED, LONG = {"a": 80, "b": 80}, {"a": 500, "b": 50}
GROUPS = {"a_x": 40, "a_y": 40, "b_x": 40, "b_y": 40}
ENOUGH = {"a": 30, "b": 20}


@pytest.mark.parametrize(
    ("found", "method", "settings"),
    [
        (Found(BALANCED, None, ENOUGH), "clp", {"evidence": ["bias"], "factual_infills": []}),
        (Found(BALANCED, None, {"a": 10, "b": 90}), "erm", {}),  # there are none for a meta set
        (Found(BALANCED, None, ENOUGH, masks=True), "background_swap", {}),
        (Found(BALANCED, GROUPS, GROUPS), "group_reweighting", {}),
        (Found(BALANCED, GROUPS, GROUPS, masks=True), "group_reweighting", {"train_infills": ["mix_rand"]}),
        (Found(LONG, None, ENOUGH), "logit_adjustment", {}),
        (Found(LONG, None, ENOUGH, masks=True), "logit_adjustment", {"train_infills": ["mix_rand"]}),
        (Found({"a": 499, "b": 50}, None, ENOUGH), "clp", {}),
        (Found(LONG, GROUPS, GROUPS, suspect=True), "generalised_cross_entropy", {}),
        (Found(BALANCED, None, ENOUGH, looked_for="discover"), "group_reweighting", {}),
    ],
)
def test_the_method_follows(found, method, settings):
    choice = choose(found, None, {})
    assert choice.method == method
    assert choice.method in METHODS
    assert {name: choice.settings.get(name) for name in settings} == settings
    assert settings or "evidence" not in choice.settings or method == "clp"


def test_what_was_asked_for_is_stronger():
    found = Found(BALANCED, GROUPS, GROUPS)
    assert choose(found, None, {"evidence": ["attribute"]}).method == "clp"  # re-weighting has no use for it
    assert choose(found, "clp", {}).settings["evidence"] == ["attribute"]
    assert choose(found, "ldam", {}).settings == {}
    choice = choose(Found(BALANCED, None, ENOUGH), None, {"evidence": ["bias"]})
    assert choice.flags({"evidence": ["bias"]}).startswith("--method clp --counterfactual_infills none")


def test_what_would_help_is_what_is_not_there():
    line = more(Found(BALANCED, GROUPS, GROUPS, masks=True, test=True), "photos")
    assert line == "More would help: nothing that you could add."
    line = more(Found(BALANCED, None, {"a": 4, "b": 5}, masks=True, suspect=True), "photos")
    assert "clp-hf masks" not in line
    assert "clp-hf groups photos" in line
    assert "labels you have checked" in line
    assert "the smallest has 4 (a)" in line


@pytest.mark.parametrize(
    ("given", "fix"),
    [({"meta_samples": 11}, "10 fit: --meta_samples 10."), ({"meta_images": 24}, "20 fit: --meta_images 20.")],
)
def test_a_meta_set_that_leaves_too_few_says_how_many_fit(given, fix):
    found = Found(BALANCED, None, ENOUGH)
    choice = choose(found, None, given)
    with pytest.raises(ValueError, match=f"leaves fewer than 10 validation images of b 20 .* {fix}"):
        check_meta_set(found, choice, given)
    check_meta_set(found, choice, {next(iter(given)): 10 if "meta_samples" in given else 20})


# ---- what is held out, and where it is written -----------------------------------------------------------------------


@pytest.mark.parametrize(("sizes", "held_out"), [((100, 100), (20, 20)), ((60, 500), (20, 100)), ((20, 30), (8, 12))])
def test_enough_of_every_class_is_held_out(sizes, held_out):
    labels = np.repeat([0, 1], sizes)
    splits = DatasetDict(train=Dataset.from_dict({"label": labels}).cast_column("label", ClassLabel(names=["a", "b"])))
    found = split_validation(splits, 0.2, 0, 20)
    assert tuple(np.bincount(found["validation"]["label"])) == held_out
    assert tuple(np.bincount(found["train"]["label"])) == tuple(np.subtract(sizes, held_out))
    again = split_validation(splits, 0.2, 0, 20)
    assert found["validation"]["label"][:] == again["validation"]["label"][:]


def test_a_method_is_known_by_its_settings():
    off = {"meta_every": 0, "training_loss": "cross_entropy", "train_sampling": "class", "train_infills": []}
    assert method_named(off) == "erm"
    assert method_named(off | {"train_infills": ["mix_rand"]}) == "background_swap"
    assert method_named(off | {"train_sampling": "group"}) == "group_reweighting"
    assert method_named({"meta_every": 1, "evidence": ["bias"]}) == "clp"
    assert method_named({"support_size": 4}) is None


def test_a_run_that_has_not_ended_and_what_stays_when_a_folder_is_cleared(tmp_path):
    folder = str(tmp_path)
    check_output_folder(str(tmp_path / "new"), "erm", "resnet18", overwrite=False)
    clear_output_folder(str(tmp_path / "new"), overwrite=True)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "erm").mkdir()
    check_output_folder(folder, "erm", "resnet18", overwrite=False)
    (tmp_path / "checkpoint-4").mkdir()
    with pytest.raises(ValueError, match=r"has not ended, up to checkpoint-4\. Go on with it"):
        check_output_folder(folder, "erm", "resnet18", overwrite=False)
    check_output_folder(folder, "erm", "resnet18", overwrite=False, resumed=True)
    with pytest.raises(ValueError, match="leave one out"):
        check_output_folder(folder, "erm", "resnet18", overwrite=True, resumed=True)
    with pytest.raises(ValueError, match=r"up to checkpoint-4\. Give another --output_dir"):
        check_output_folder(folder, "dfr", "resnet18", overwrite=False, resumable=False)
    for begun_with in (folder, f"{folder}/checkpoint-4", os.path.relpath(folder)):
        with pytest.raises(ValueError, match="removes the model that this run begins with"):
            check_output_folder(folder, "erm", begun_with, overwrite=True)
    check_output_folder(folder, "erm", f"{folder}/erm", overwrite=True)  # which stays
    (tmp_path / "_run.json").write_text("{}")
    with pytest.raises(ValueError, match="holds a run that cannot be read"):
        check_output_folder(folder, "erm", "resnet18", overwrite=False)
    (tmp_path / "all_results.json").write_text("{}")
    clear_output_folder(folder, overwrite=False)
    assert {path.name for path in tmp_path.iterdir()} == {"notes.txt", "erm", "checkpoint-4", "_run.json"}
    clear_output_folder(folder, overwrite=True)
    assert {path.name for path in tmp_path.iterdir()} == {"notes.txt", "erm"}
