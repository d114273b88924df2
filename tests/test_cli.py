"""The clp-hf command: its help, what it hands on, its exit statuses, and a run from training to evaluation."""

import importlib.metadata
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from accelerate.commands import launch
from typer.testing import CliRunner

from clp_hf import CLPTrainingArguments, __version__
from clp_hf.cli import app
from clp_hf.data import embedded_birds
from clp_hf.experiment import REPAIRS, parse_arguments
from clp_hf.experiment import launch as recipes_launch
from clp_hf.utils import shipped

ROOT = Path(__file__).parents[1]
RECIPES = sorted(path.stem for path in (ROOT / "recipes").glob("*.py") if path.stem != "make_masks")


@pytest.fixture
def run():
    """Run the command in this process; its result has `exit_code`, `stdout` and `stderr`."""
    return lambda *arguments: CliRunner().invoke(app, list(arguments), catch_exceptions=False)


@pytest.fixture(autouse=True)
def restored(monkeypatch):
    """A recipe run in this process sets these."""
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    monkeypatch.setattr(sys, "path", list(sys.path))


def command(*arguments, **variables):
    """The command as a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", **variables}
    return subprocess.run([sys.executable, "-m", "clp_hf", *arguments], capture_output=True, text=True, env=environment)


def test_help_needs_neither_torch_nor_transformers():
    code = (
        "import sys; from typer.testing import CliRunner; from clp_hf.cli import app\n"
        "for words in ([], ['train'], ['evaluate'], ['repair'], ['demo']):\n"
        "    assert CliRunner().invoke(app, [*words, '--help']).exit_code == 0\n"
        "print({'torch', 'transformers', 'datasets', 'sklearn', 'gradio'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "set()"


def test_the_package_gives_its_names_at_first_use():
    import clp_hf

    assert {"CLPTrainer", "CLPTrainingArguments", "PerturbationNetwork"} <= set(dir(clp_hf))
    assert clp_hf.CLPTrainer is importlib.import_module("clp_hf.trainer").CLPTrainer
    with pytest.raises(AttributeError, match="no attribute 'Trainer'"):
        clp_hf.Trainer  # noqa: B018


def test_help_lists_commands_and_recipes(run):
    names = ("train", "evaluate", "report", "masks", "hsfm", "repair", "demo")
    assert all(f"\n  {name} " in run("--help").stdout for name in names)
    text = " ".join(run("train", "--help").stdout.split())
    for name in RECIPES:
        first_line = (ROOT / "recipes" / f"{name}.py").read_text().splitlines()[0].strip('"')
        assert f"{name} {first_line}" in text
    assert run("--version").stdout.strip() == __version__


@pytest.mark.parametrize(
    ("words", "program"), [(["train", "cifar_noisy"], "clp-hf train cifar_noisy"), (["masks"], "clp-hf masks")]
)
def test_a_recipes_own_help(run, words, program):
    done = run(*words, "--help")
    assert done.exit_code == 0
    assert f"usage: {program} [options]" in done.stdout
    own = {"cifar_noisy": "--noise_rate", "masks": "--segmenter"}[words[-1]]
    assert own in done.stdout
    assert "(default: " in done.stdout


def test_evaluation_has_the_groups_of_recipes(run):
    text = run("evaluate", "--help").stdout
    for group, option in {
        "Options:": "--batch_size",
        "data:": "--label_column",
        "output and hub:": "--revision",
    }.items():
        assert 0 < text.index(f"\n{group}\n") < text.index(option)


def test_completion():
    assert "_clp_hf_completion" in command(_CLP_HF_COMPLETE="source_bash").stdout
    words = {"_CLP_HF_COMPLETE": "complete_bash", "COMP_CWORD": "2"}
    assert command(**words, COMP_WORDS="clp-hf train cif").stdout.split() == [
        "cifar_longtail",
        "cifar_noisy",
        "cifar_superclasses",
    ]
    assert "evaluate" in command(**words | {"COMP_CWORD": "1"}, COMP_WORDS="clp-hf ev").stdout.split()


@pytest.fixture
def launched(monkeypatch):
    """What accelerate is asked to launch, where more than one process may be wanted."""
    given = []
    monkeypatch.setattr(recipes_launch, "one_process_is_all", lambda: False)
    monkeypatch.setattr(launch, "launch_command", given.append)
    return given


def test_what_stands_before_the_recipe_is_accelerates(run, launched):
    flags = ["--num_train_epochs", "2", "--num_processes", "7"]
    done = run("train", "--num_processes", "2", "--mixed_precision=bf16", "waterbirds", *flags)
    (args,) = launched
    assert (args.multi_gpu, args.cpu) == (True, False)  # without which accelerate starts one
    assert (args.num_processes, args.mixed_precision) == (2, "bf16")
    assert (args.module, args.training_script) == (True, "clp_hf.experiment.launch")
    assert args.training_script_args == ["waterbirds", *flags]
    assert done.exit_code == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--method", "erm", "waterbirds"],
            "The recipe's own options follow its name: clp-hf train waterbirds --method",
        ),
        (["--num_proceses=2", "waterbirds"], "--num_proceses is no option of accelerate's.* Did you mean '--num_proc"),
        (["--config_file", "nowhere.yaml", "waterbirds"], "`nowhere.yaml` does not exist"),
    ],
)
def test_options_before_the_recipe_that_accelerate_does_not_know(run, launched, words, message):
    done = run("train", *words)
    assert done.exit_code == 1
    assert re.search(message, done.stderr)
    assert not launched


def test_hsfm_is_its_recipe(run, launched):
    run("hsfm", "--trials", "3")
    assert launched[0].training_script_args == ["hsfm", "--trials", "3"]


def test_repair_is_its_recipe_and_has_an_overview(run, launched):
    run("repair", "--method", "dfr", "--on", "meta")
    assert launched[0].training_script_args == ["repair", "--method", "dfr", "--on", "meta"]
    overview = " ".join(run("repair", "--help").stdout.split())  # however wide the terminal is
    assert all(f" {name} (" in overview for name in REPAIRS)
    assert "--on {validation,meta}" in run("repair", "--method", "dfr", "--help").stdout


def test_a_recipe_that_does_not_exist(run, launched):
    done = run("train", "waterbird", "--compare")
    assert done.exit_code == 1
    assert done.stderr.startswith(
        "Error: There is no recipe 'waterbird'. Did you mean 'waterbirds'? The recipes are celeba"
    )
    assert not launched


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "There is no settings file"),
        ("method: erm", "does not name its recipe. Add a line such as `recipe: waterbirds`"),
        ("- waterbirds", "does not name its recipe"),
        ("recipe: birds", "There is no recipe 'birds'"),
        ("recipe: [", "is not valid YAML"),
        ("", "it has nothing, expected a mapping"),
        ("waterbirds", "it has a str, expected a mapping"),
        ("recipe: waterbirds\nrecipe: celeba", "says 'recipe' twice"),
        ("recipe: waterbirds\nlr_scheduler_kwargs: {a: 1, a: 2}", "says 'a' twice"),
        ("recipe: !!python/object:os.system x", "is not valid YAML"),
        ("recipe: waterbirds # Vögel".encode("latin-1"), "is not in UTF-8 .byte 0xf6 at 22.: save it in UTF-8"),
        ("recipe: waterbirds".encode("utf-16"), "is not in UTF-8"),
    ],
)
def test_bad_settings_files(tmp_path, content, message):
    path = tmp_path / "settings.yaml"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message):
        recipes_launch.find_recipe(str(path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"recipe": "waterbirds", "seed": 1, "seed": 2}', "says 'seed' twice"),
        ("{recipe: waterbirds}", "is not valid JSON"),
        ('["waterbirds"]', "it has a list, expected a mapping"),
    ],
)
def test_bad_settings_in_json(tmp_path, content, message):
    (tmp_path / "settings.JSON").write_text(content)
    with pytest.raises(ValueError, match=message):
        recipes_launch.find_recipe(str(tmp_path / "settings.JSON"))


def test_settings_as_editors_write_them(tmp_path):
    (tmp_path / "tabs.json").write_text('{\n\t"recipe": "waterbirds"\n}')
    (tmp_path / "mark.yml").write_bytes("\ufeffrecipe: waterbirds\r\n".encode())
    assert {recipes_launch.find_recipe(str(path)) for path in tmp_path.iterdir()} == {"waterbirds"}


@pytest.mark.parametrize("status", [1, 2, 137])
def test_the_recipes_exit_status_is_the_commands(run, monkeypatch, status):
    def fail(args):
        raise subprocess.CalledProcessError(status, "recipe")

    monkeypatch.setattr(recipes_launch, "one_process_is_all", lambda: False)
    monkeypatch.setattr(launch, "launch_command", fail)
    assert run("train", "waterbirds").exit_code == status


def test_errors_of_the_user_are_told_without_a_traceback(run, tmp_path, capfd, monkeypatch):
    """Launched really: the process that accelerate starts refuses before it imports anything."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (tmp_path / "settings.yaml").write_text("recipe: waterbirds")
    assert run("train", "--cpu", str(tmp_path / "settings.yaml"), "--metod", "erm").exit_code == 1
    error = capfd.readouterr().err
    assert "Did you mean '--method'?" in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--meta_every", "-1"], "meta_every"),  # of this package
        (["--no_such_option", "1"], "['--no_such_option', '1']"),  # of the argument parser
        (["--learing_rate", "1"], "Did you mean '--learning_rate'?"),
        (["--metod=erm"], "Did you mean '--method'?"),
        (["–method", "erm"], "is no option of clp-hf train waterbirds: ['–method', 'erm']"),
        (["--num_processes", "2"], "stand before the recipe: clp-hf train --num_processes … waterbirds"),
        (["settings.yaml"], "There is no settings file 'settings.yaml'"),
        (["--resume_from_checkpoint"], "there is no checkpoint in"),
        (["--save_strategy", "no"], "load_best_model_at_end"),  # of transformers' arguments
    ],
)
def test_a_recipes_errors_in_words(tmp_path, capsys, flags, message):
    with pytest.raises(SystemExit, match="1"):
        recipes_launch.main(["waterbirds", "--output_dir", str(tmp_path), "--use_cpu", "true", *flags])
    error = capsys.readouterr().err
    assert error.startswith("Error: ")
    assert message in error


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("recipe: celeba", "has the settings of the recipe 'celeba', and this is 'waterbirds'"),
        ("method: magic", "method is 'magic', expected one of erm"),
        ("learning_rate: fast", "learning_rate is 'fast', expected a number"),
        ("learning_rat: 1", "'learning_rat' is no option of waterbirds. Did you mean 'learning_rate'?"),
        ("num_processes: 2", "--num_processes is an option of accelerate's, which stand before the recipe"),
        ("training: {seed: 1}", "'training' is no option of waterbirds.* Settings are not nested"),
        ("7: 1", "'7' is no option of waterbirds"),
        ("seed: true", "seed is True, expected a whole number"),
        ("seed: 1.5", "seed is 1.5, expected a whole number"),
        ("seed: [1, 2]", r"seed is \[1, 2\], expected a whole number"),
        ("seed: {a: 1}", "seed is {'a': 1}, expected a whole number"),
        ("learning_rate: null", "learning_rate is null, expected a number"),
        ("learning_rate: [0.1]", r"learning_rate is \[0.1\], expected a number"),
        ("pretrained: maybe", "pretrained is 'maybe', expected true or false"),
        ("pretrained: 2", "pretrained is 2, expected true or false"),
        ("run_name: 7", "run_name is 7, expected text, in quotes or null"),
        ("run_name: 2026-01-01", "run_name is datetime.date.*, expected text, in quotes"),
        ("class_names: [true, false]", "class_names is .*, expected a list of text, in quotes"),
        ("class_names: {a: 1}", "class_names is .*, expected a list of text, in quotes"),
        ("lr_decay_at: [half]", "lr_decay_at is .*, expected a list of a number"),
        ("meta_boxes: [box]", "meta_boxes is .*, expected text"),
        ("seed: 1\nseed: 2", "says 'seed' twice"),
    ],
)
def test_wrong_settings_are_refused(tmp_path, content, message):
    (tmp_path / "settings.yaml").write_text(f"{content}\noutput_dir: {tmp_path}")
    with pytest.raises(ValueError, match=message):
        recipes_launch.run_here("waterbirds", [str(tmp_path / "settings.yaml")], "clp-hf train waterbirds")


@pytest.mark.parametrize(
    ("content", "name", "value"),
    [
        ("perturbation_learning_rate: 1e-3", "perturbation_learning_rate", 1e-3),  # text, to YAML
        ("learning_rate: 1", "learning_rate", 1.0),
        ("seed: '7'", "seed", 7),
        ("meta_batch_size: null", "meta_batch_size", None),
        ("save_strategy: no", "save_strategy", "no"),  # a boolean, to YAML 1.1
        ("class_prior: yes", "class_prior", True),
        ("factual_infills: shuffle", "factual_infills", ["shuffle"]),
        ("factual_infills: []", "factual_infills", []),
        ("label_names: [yes, no]", "label_names", ["yes", "no"]),
        ("lr_scheduler_kwargs: {num_cycles: 2}", "lr_scheduler_kwargs", {"num_cycles": 2}),
        ("report_to: [none]", "report_to", []),
        ("resume_from_checkpoint: true", "resume_from_checkpoint", "true"),
        ("resume_from_checkpoint: false", "resume_from_checkpoint", "false"),
        ("optim: sgd", "optim", "sgd"),
    ],
)
def test_values_of_a_settings_file(tmp_path, monkeypatch, content, name, value):
    (tmp_path / "settings.yaml").write_text(f"{content}\noutput_dir: {tmp_path}\nuse_cpu: true")
    monkeypatch.setattr(sys, "argv", ["waterbirds", str(tmp_path / "settings.yaml")])
    (args,) = parse_arguments((CLPTrainingArguments,), "", {})
    assert getattr(args, name) == value


def test_other_errors_keep_their_traceback():
    with pytest.raises(ValueError, match="could not convert"), recipes_launch.user_errors():
        float("fast")
    with pytest.raises(RuntimeError), recipes_launch.user_errors():
        torch.zeros(2) + torch.zeros(3)


def test_report_hands_its_runs_on(run, monkeypatch):
    given = []

    def write_report(runs, output):
        given.append((runs, output))
        return Path(output)

    monkeypatch.setitem(sys.modules, "clp_hf.report", SimpleNamespace(write_report=write_report))
    assert run("report", "runs/erm", "runs/clp", "--output", "birds.html").stdout.strip() == "birds.html"
    assert given == [(["runs/erm", "runs/clp"], "birds.html")]
    assert run("report").exit_code == 2


def test_recipes_of_an_installation_come_first(tmp_path, monkeypatch):
    assert shipped.shipped("recipes") == ROOT / "recipes"
    monkeypatch.setattr(shipped, "PACKAGE", tmp_path / "clp_hf")
    (tmp_path / "clp_hf" / "recipes").mkdir(parents=True)
    assert shipped.shipped("recipes") == tmp_path / "clp_hf" / "recipes"


def test_the_installed_package_has_command_and_recipes():
    try:
        distribution = importlib.metadata.distribution("clp-hf")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("clp-hf is not installed, but run from the checkout")
    if any(str(path).endswith(".pth") for path in distribution.files):
        pytest.skip("clp-hf is installed in development mode: its recipes are the checkout's")
    files = set(map(str, distribution.files))
    assert {f"clp_hf/recipes/{name}.py" for name in [*RECIPES, "make_masks"]} <= files
    assert {"clp_hf/recipes/accelerate/multi_gpu.yaml", "clp_hf/hub_cards/clp.md"} <= files
    assert ("clp-hf", "clp_hf.cli:app") in {(entry.name, entry.value) for entry in distribution.entry_points}


@pytest.mark.slow
def test_from_settings_to_a_table(tmp_path, run, capfd, monkeypatch):
    """Train by a settings file, launched really; evaluation gives the recipe's own test results again."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (tmp_path / "data").mkdir()
    for name, split in embedded_birds(64, 24, 24, image_size=32).items():
        split.to_parquet(tmp_path / "data" / f"{name}-00000-of-00001.parquet")
    settings = {
        "recipe": "waterbirds",
        "dataset_name": str(tmp_path / "data"),
        "model_name_or_path": "cifar_resnet20",
        "image_size": 32,
        "freeze_batch_norm": False,
        "method": "erm",
        "max_steps": 2,
        "eval_steps": 1,
        "save_steps": 1,
        "meta_samples": 2,
        "use_cpu": True,
        "disable_tqdm": True,
        "report_to": "none",
        "output_dir": str(tmp_path / "run"),
    }
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(settings))
    assert run("train", "--cpu", str(tmp_path / "settings.yaml")).exit_code == 0
    assert "| waterbird_on_land" in capfd.readouterr().out
    expected = json.loads((tmp_path / "run" / "all_results.json").read_text())

    output = tmp_path / "evaluation.json"
    data = ("--dataset_name", str(tmp_path / "data"), "--output", str(output))
    evaluated = run("evaluate", str(tmp_path / "run"), *data)
    assert "| waterbird_on_land" in evaluated.stdout
    (found,) = json.loads(output.read_text())
    assert found["split"] == "test"
    assert found["metrics"] == pytest.approx({name: expected[f"test_{name}"] for name in found["metrics"]}, abs=1e-5)

    missing = run("evaluate", str(tmp_path / "run"), "--split", "night", *data)
    assert missing.exit_code == 1
    assert "has no split 'night': choose one of train, validation, test" in missing.stderr

    (tmp_path / "empty").mkdir()
    no_images = run("evaluate", str(tmp_path / "run"), "--dataset_name", str(tmp_path / "empty"))
    assert (no_images.exit_code, "doesn't contain any data files" in no_images.stderr) == (1, True)
    no_model = run("evaluate", str(tmp_path / "empty"))
    assert (no_model.exit_code, "Unrecognized model in" in no_model.stderr) == (1, True)
