"""`clp-hf repair`: a trained classifier's head by every method, and what is said of the data before."""

import importlib
import json
import sys
from pathlib import Path

import pytest
import torch
from conftest import resnet
from transformers import BitImageProcessor

from clp_hf.data.dataset import ImageClassificationDataset
from clp_hf.data.embedded import embedded_birds
from clp_hf.experiment import REPAIRS
from clp_hf.experiment.advice import ROWS, advice
from clp_hf.experiment.evaluation import evaluate_checkpoint
from clp_hf.features import HeadTrainer
from clp_hf.modeling.loading import load_image_classifier
from clp_hf.report import write_report

RECIPES = Path(__file__).parents[2] / "recipes"
FLAGS = ["--image_size", "32", "--meta_images", "16", "--use_cpu", "true", "--disable_tqdm", "true", "--report_to",
         "none"]  # fmt: skip
HSFM = ["--epochs", "2", "--support_size", "4", "--hard_size", "4"]


@pytest.fixture(scope="module")
def birds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("birds")
    for name, split in embedded_birds(n_train=64, n_validation=48, n_test=24, image_size=32).items():
        split.to_parquet(folder / f"{name}.parquet")
    return folder


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    torch.manual_seed(0)
    names = {0: "landbird", 1: "waterbird"}
    model = load_image_classifier("cifar_resnet20", id2label=names, image_size=32, pretrained=False)
    folder = tmp_path_factory.mktemp("classifier")
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def run(tmp_path, monkeypatch, capsys, caplog, birds, classifier):
    """Run a recipe with these flags: what it printed, what it logged and its results."""

    def run(*flags, recipe="repair", data=birds, always=FLAGS):
        monkeypatch.syspath_prepend(str(RECIPES))
        given = ["--model_name_or_path", str(classifier), "--dataset_name", str(data)]
        monkeypatch.setattr(sys, "argv", [recipe, *always, *given, "--output_dir", str(tmp_path / "run"), *flags])
        importlib.import_module(recipe).main()
        return capsys.readouterr().out, caplog.text, json.loads((tmp_path / "run" / "all_results.json").read_text())

    return run


@pytest.mark.parametrize(
    ("method", "flags"),
    [
        ("clp", ["--strength_steps", "2"]),
        ("hsfm", HSFM),
        ("dfr", ["--on", "meta"]),
        ("gsr", ["--on", "meta"]),
        ("afr", []),
        ("jtt", []),
        ("regression", ["--balance", "group"]),
        ("group_dro", []),
        ("crt", []),
        ("lws", []),
        ("tde", []),
        ("self", []),
    ],
)
def test_every_method_repairs_a_checkpoint_and_is_reported(run, tmp_path, classifier, method, flags):
    printed, _, results = run("--method", method, *flags)
    table = printed[printed.index("| accuracy, %") :].splitlines()
    name = REPAIRS[method].trainer.NAME
    assert [title.strip() for title in table[0].split("|")[2:-1]] == ["train", "before", name]
    assert "landbird_on_water" in table[3]
    assert {"eval_worst_group_accuracy", "test_worst_group_accuracy", "train_runtime"} <= set(results)
    before = load_image_classifier(str(classifier)).state_dict()
    after = load_image_classifier(str(tmp_path / "run")).state_dict()
    changed = {key.rpartition(".")[0] for key in after if not torch.equal(after[key], before[key])}
    assert changed == {"timm_model.fc"} or (method == "hsfm" and not changed)  # which may find nothing better
    page = write_report([tmp_path / "run"], tmp_path / "report.html").read_text()
    assert {"clp": "CLP head"}.get(method, name) in page
    assert "validation, before" in page


def test_where_features_are_known_no_split_is_decoded(run, tmp_path, monkeypatch):
    decoded, decode = [], ImageClassificationDataset._decode
    monkeypatch.setattr(
        ImageClassificationDataset, "_decode", lambda *args: decoded.append(len(args[1])) or decode(*args)
    )
    flags = ["--method", "dfr", "--on", "validation", "--feature_cache", str(tmp_path / "features")]
    _, _, first = run(*flags)
    assert 24 in decoded  # the test split
    decoded.clear()
    _, _, again = run(*flags, "--overwrite_output_dir", "true")
    assert set(decoded) == {1}  # an example now and then, and the worst images for the card
    assert {name: value for name, value in again.items() if "accuracy" in name} == {
        name: value for name, value in first.items() if "accuracy" in name
    }


def test_a_backbone_of_other_classes_gets_a_new_head(run, tmp_path, monkeypatch):
    torch.manual_seed(0)
    load_image_classifier("cifar_resnet20", num_labels=30, image_size=32, pretrained=False).save_pretrained(
        tmp_path / "other"
    )
    other = ["--model_name_or_path", str(tmp_path / "other"), "--strength_steps", "1"]
    with pytest.raises(ValueError, match=r"'LABEL_11'\] … apart.*clp-hf repair --new_head true"):
        run(*other)
    run(*other, "--new_head", "true")
    assert set(load_image_classifier(str(tmp_path / "run")).config.id2label.values()) == {"landbird", "waterbird"}


@pytest.mark.parametrize(("recipe", "flags"), [("repair", ["--method", "jtt"]), ("hsfm", HSFM)])
@pytest.mark.parametrize("size", [None, 24])
def test_images_go_through_the_processor_of_the_checkpoint(run, birds, tmp_path, monkeypatch, recipe, flags, size):
    """One that crops, at its own size or at the one that is asked for; what is saved is what was judged."""
    torch.manual_seed(0)
    model = resnet(2)
    model.config.id2label, model.config.label2id = {0: "waterbird", 1: "landbird"}, {"waterbird": 0, "landbird": 1}
    model.save_pretrained(tmp_path / "checkpoint")
    crop = {"height": 20, "width": 20}
    BitImageProcessor(size={"shortest_edge": 30}, crop_size=crop).save_pretrained(tmp_path / "checkpoint")
    given = [] if size is None else ["--image_size", str(size)]
    shapes, train = [], HeadTrainer.train

    def watched(trainer):
        shapes.append(trainer.train_dataset[0]["pixel_values"].shape)
        return train(trainer)

    monkeypatch.setattr(HeadTrainer, "train", watched)
    _, _, results = run(
        *flags, *given, "--model_name_or_path", str(tmp_path / "checkpoint"), recipe=recipe, always=FLAGS[2:]
    )
    expected = size or 20
    assert shapes == [(3, expected, expected)]
    saved = BitImageProcessor.from_pretrained(tmp_path / "run")
    assert saved.crop_size["height"] == expected
    assert saved.size["shortest_edge"] == expected * 3 // 2
    again = evaluate_checkpoint(str(tmp_path / "run"), str(birds))
    assert again.metrics["nll"] == pytest.approx(results["test_nll"], abs=1e-4)


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--method", "afr"], "afr begins with a trained one"),
        (["--train_backbone", "erm"], "--train_backbone trains one"),
    ],
)
def test_a_new_head_where_one_is_needed_or_trained_is_refused(run, flags, reason):
    with pytest.raises(ValueError, match=reason):
        run("--new_head", "true", *flags)


def test_an_older_run_of_another_kind_is_refused_or_removed(run, tmp_path, classifier, monkeypatch):
    folder = tmp_path / "run"
    run("--method", "afr")
    run("--method", "afr")  # written over
    (folder / "perturbation_network").mkdir()
    with pytest.raises(ValueError, match=r"a run of another method, afr, .* of jtt.*--overwrite_output_dir true"):
        run("--method", "jtt")
    with pytest.raises(ValueError, match=r"a run of another method, afr, .* of hsfm"):
        run(*HSFM, recipe="hsfm")
    with pytest.raises(ValueError, match="removes the model that this run begins with"):
        run("--method", "jtt", "--overwrite_output_dir", "true", "--model_name_or_path", str(folder))
    run("--method", "jtt", "--overwrite_output_dir", "true")
    assert not (folder / "perturbation_network").exists()
    assert json.loads((folder / "_run.json").read_text())["method"] == "jtt"
    with pytest.raises(ValueError, match=r"a run of another method, jtt, .* of erm"):
        run("--method", "erm", "--max_steps", "1", recipe="waterbirds")


def test_what_lies_in_the_folder_of_the_backbone_is_refused_or_removed(run, tmp_path, monkeypatch):
    folder = tmp_path / "run" / "backbone"
    (folder / "checkpoint-4").mkdir(parents=True)
    flags = ["--method", "jtt", "--train_backbone", "erm"]
    with pytest.raises(ValueError, match=r"backbone' holds a run that has not ended, up to checkpoint-4\. Give"):
        run(*flags)

    def train(*args):
        raise InterruptedError

    monkeypatch.setattr("clp_hf.experiment.repairs.Experiment.run", train)
    with pytest.raises(InterruptedError):
        run(*flags, "--overwrite_output_dir", "true")
    assert not (folder / "checkpoint-4").exists()


@pytest.mark.parametrize("recipe", ["repair", "hsfm"])
@pytest.mark.parametrize(("flag", "value"), [("resume_from_checkpoint", "last"), ("learning_rate", "0.1")])
def test_what_is_of_training_by_steps_is_refused_and_not_in_the_help(run, recipe, flag, value, capsys):
    with pytest.raises(ValueError, match=rf"--{flag} {value} was given, but a head is learned in one go"):
        run(f"--{flag}", value, recipe=recipe)
    with pytest.raises(SystemExit):
        run("--help-all", recipe=recipe)
    assert flag not in capsys.readouterr().out


def test_the_meta_set_is_out_of_validation_and_as_it_is_evaluated(run, tmp_path, monkeypatch):
    trainers = []

    def train(trainer):
        trainers.append(trainer)
        raise InterruptedError

    monkeypatch.setattr(REPAIRS["clp"].trainer, "train", train)
    with pytest.raises(InterruptedError):
        run()
    (made,) = trainers
    assert (len(made.train_dataset), len(made.meta_dataset), len(made.eval_dataset)) == (64, 16, 32)
    assert made.meta_dataset.transform is made.eval_dataset.transform is made.train_dataset.transform


def test_an_option_of_another_method_is_refused(run):
    with pytest.raises(ValueError, match=r"no option of repair: \['--trials', '3'\]"):
        run("--method", "dfr", "--trials", "3")


def test_the_method_may_stand_in_a_settings_file(run, tmp_path, monkeypatch):
    (tmp_path / "settings.yaml").write_text("recipe: repair\nmethod: dfr\non: test\n")
    monkeypatch.setattr(sys, "argv", ["repair", str(tmp_path / "settings.yaml")])
    monkeypatch.syspath_prepend(str(RECIPES))
    with pytest.raises(ValueError, match="on is 'test'"):
        importlib.import_module("repair").main()


def test_unknown_methods(run):
    with pytest.raises(
        ValueError,
        match=rf"There is no method 'drf'. Did you mean 'dfr'.* Choose: {', '.join(REPAIRS)}",
    ):
        run("--method", "drf")


# ---- advice ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("has", "rows"), ROWS.items())
def test_advice_names_the_rows_and_what_is_missing(has, rows):
    masks, groups = has
    line = advice(masks, groups)
    assert "\n" not in line
    assert all(f"'{row}'" in line for row in rows)
    assert ("clp-hf masks makes them" in line) != masks
    assert ("ten images of every group, class" in line) == (groups == "none")
    assert ("Nothing that you could add" in line) == (masks and groups != "none")


@pytest.mark.parametrize("masks", [False, True])
def test_groups_that_were_discovered_are_called_so(masks):
    line = advice(masks, "none", discovered=True)
    assert line.startswith(advice(masks, "none").split(". ")[0] + ", with groups that were discovered")
    assert "every group label" not in line
    assert "ten images of every group, class" in line


def test_it_is_said_once_before_training(run, birds, tmp_path):
    logged = run("--method", "afr")[1]
    assert logged.count("Which one for what you have: 'every group label' and 'masks and ten images a group'.") == 1
    flags = ["--mask_column", "none", "--attribute_column", "none", "--group_column", "none"]
    flags += ["--method", "erm", "--max_steps", "1", "--freeze_batch_norm", "false", "--overwrite_output_dir", "true"]
    logged = run(*flags, recipe="waterbirds")[1]
    assert "Which one for what you have: 'labels only'. What would add to it: masks of the images" in logged
