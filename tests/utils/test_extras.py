"""What is not installed is told by the extra that has it, before anything is loaded or trained."""

import importlib
import re
import sys
from pathlib import Path

import pytest

from clp_hf import CLPTrainingArguments
from clp_hf.base.requirements import check_installed, check_search
from clp_hf.experiment import DataArguments, ModelArguments
from clp_hf.experiment.packages import check_packages
from clp_hf.utils.extras import EXTRAS, needed_by, require


@pytest.fixture
def without(monkeypatch):
    """Have these modules not be installed."""
    return lambda *names: [monkeypatch.setitem(sys.modules, name, None) for name in names]


def arguments(tmp_path, **settings):
    return CLPTrainingArguments(str(tmp_path), use_cpu=True, **{"report_to": [], **settings})


@pytest.mark.parametrize(
    ("settings", "module", "fix"),
    [
        ({"report_to": ["trackio"]}, "trackio", 'pip install "clp-hf[tracking]"'),
        ({"report_to": ["tensorboard"]}, "tensorboard", "pip install tensorboard"),
        ({"report_to": ["wandb"]}, "wandb", "pip install wandb"),
        ({"counterfactual_infills": ["inpaint"]}, "cv2", 'pip install "clp-hf[vision]"'),
        (
            {"counterfactual_infills": ["inpaint"], "inpainting_model": "some/pipeline"},
            "diffusers",
            'pip install "clp-hf[vision]"',
        ),
        ({"optim": "adamw_8bit"}, "bitsandbytes", "pip install bitsandbytes"),
        ({"optim": "schedule_free_adamw"}, "schedulefree", "pip install schedulefree"),
        ({"optim": "galore_adamw_8bit"}, "galore_torch", "pip install galore-torch"),
    ],
)
def test_what_the_arguments_ask_for(without, tmp_path, settings, module, fix):
    without(module, "tensorboardX")
    with pytest.raises(ImportError) as refused:
        check_installed(arguments(tmp_path, **settings))
    assert str(refused.value).endswith(f"which is not installed: {fix}")


def test_a_trainer_is_refused_before_its_callbacks_are_built(without, make_trainer):
    without("trackio")
    with pytest.raises(ImportError, match=r"report_to='trackio' needs Trackio.*clp-hf\[tracking\]"):
        make_trainer(report_to=["trackio"])


def test_an_unknown_tracker_is_told_with_the_known_ones(tmp_path):
    with pytest.raises(ValueError, match=r"'trakio'\. Did you mean 'trackio'.*wandb"):
        check_installed(arguments(tmp_path, report_to=["trakio"]))


@pytest.mark.parametrize(
    ("data", "model", "module", "message"),
    [
        ({"train_boxes": "grabcut"}, {}, "cv2", r"--train_boxes grabcut needs OpenCV.*clp-hf\[vision\]"),
        ({}, {"attribution": True}, "pytorch_grad_cam", r"--attribution needs grad-cam.*clp-hf\[viz\]"),
    ],
)
def test_what_the_data_and_the_model_ask_for(without, tmp_path, data, model, module, message):
    without(module)
    with pytest.raises(ImportError, match=message):
        check_packages([arguments(tmp_path)], DataArguments(**data), ModelArguments(**model))


def test_the_second_of_two_runs_is_looked_at_before_the_first(without, tmp_path):
    without("cv2")
    runs = [arguments(tmp_path, meta_every=0), arguments(tmp_path, factual_infills=["mix_rand"], train_infills=[])]
    runs[1].counterfactual_infills = ["inpaint"]
    with pytest.raises(ImportError, match="OpenCV"):
        check_packages(runs, DataArguments(), ModelArguments())


def test_a_card_without_pictures_is_told_of(without, tmp_path, caplog):
    check_packages([arguments(tmp_path)], DataArguments(), ModelArguments())
    assert not caplog.text
    without("matplotlib")
    check_packages([arguments(tmp_path)], DataArguments(), ModelArguments())
    assert 'A card with pictures needs matplotlib, which is not installed: pip install "clp-hf[viz]"' in caplog.text


def test_a_search_without_a_backend(without, make_trainer):
    without("optuna", "ray", "wandb")
    with pytest.raises(ImportError, match=r"Optuna.*clp-hf\[search\]"):
        make_trainer(meta_every=0).hyperparameter_search()
    check_search(backend="ray")  # transformers itself says what that needs


@pytest.mark.parametrize(
    ("module", "lacks", "extra"),
    [
        ("clp_hf.visualization.demo", "gradio", "app"),
        ("clp_hf.visualization.grad_cam", "pytorch_grad_cam", "viz"),
        ("clp_hf.visualization.style", "matplotlib", "viz"),
    ],
)
def test_a_module_that_needs_an_extra_names_it(without, monkeypatch, module, lacks, extra):
    importlib.import_module(module)
    monkeypatch.delitem(sys.modules, module)
    for name in [name for name in sys.modules if name.split(".")[0] == lacks]:
        monkeypatch.delitem(sys.modules, name)
    without(lacks)
    with pytest.raises(ImportError, match=rf'not installed: pip install "clp-hf\[{extra}\]"'):
        importlib.import_module(module)


def test_an_error_inside_of_an_installed_package_stays_what_it_is():
    with pytest.raises(ModuleNotFoundError, match="a_part_that_is_gone"), needed_by("This"):
        importlib.import_module("numpy.a_part_that_is_gone")


def test_every_extra_is_one_of_the_package():
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    table = project.split("[project.optional-dependencies]")[1].split("\n[")[0]
    assert {extra.extra for extra in EXTRAS.values() if extra.extra} <= set(re.findall(r"^(\w+) = \[", table, re.M))


def test_all_that_is_missing_is_told_at_once(without):
    without("gradio", "optuna")
    with pytest.raises(ImportError, match=r'This needs Gradio and Optuna, which are .*\[app\]", pip .*\[search\]"'):
        require("This", "gradio", "optuna")
