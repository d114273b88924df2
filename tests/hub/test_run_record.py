"""What a run folder tells of how it was made: the command, without secrets, and the settings that matter."""

import sys

import pytest

from clp_hf import CLPTrainingArguments
from clp_hf.experiment import DataArguments, ModelArguments
from clp_hf.hub.record import command_line, plain_settings, training_settings


@pytest.fixture
def typed(monkeypatch, tmp_path):
    """Types a command in a folder; without what a launcher of the tests themselves may have set."""
    monkeypatch.chdir(tmp_path)
    for variable in ("ACCELERATE_DYNAMO_MODE", "ACCELERATE_MIXED_PRECISION", "WORLD_SIZE"):
        monkeypatch.delenv(variable, raising=False)

    def typed(*words, secrets=None, **environment):
        monkeypatch.setattr(sys, "argv", list(words))
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        return command_line(secrets or {})

    return typed


def test_the_command_as_it_was_typed(typed, tmp_path):
    assert typed("recipes/birds.py", "--class", "land bird") == "python recipes/birds.py --class 'land bird'"
    assert typed(str(tmp_path / "recipes" / "birds.py"), "a.yaml") == "python recipes/birds.py a.yaml"
    assert typed("/usr/local/bin/clp-hf", "train", "--seed", "1") == "clp-hf train --seed 1"
    assert typed("/elsewhere/birds.py") == "python birds.py"


def test_the_launcher_and_its_processes(typed):
    one = typed("birds.py", "--seed", "1", ACCELERATE_DYNAMO_MODE="default", ACCELERATE_MIXED_PRECISION="no")
    assert one == "accelerate launch birds.py --seed 1"
    two = typed("birds.py", "--seed", "1", WORLD_SIZE="2", ACCELERATE_MIXED_PRECISION="bf16")
    assert two == "accelerate launch --multi_gpu --num_processes 2 --mixed_precision bf16 birds.py --seed 1"
    command = typed("clp-hf train waterbirds", "--seed", "1")
    assert command == "clp-hf train --num_processes 2 --mixed_precision bf16 waterbirds --seed 1"


def test_no_token_and_no_notebook(typed, monkeypatch):
    flags = ("--hub_token", "hf_secret", "--token=hf_other")
    secrets = {"HUB_TOKEN": "hf_secret", "TOKEN": "hf_other", "UNSET": None}
    assert typed("birds.py", *flags, secrets=secrets) == "python birds.py --hub_token HUB_TOKEN --token=TOKEN"
    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    assert typed("birds.py") is None


def test_settings_are_the_usual_ones_those_that_were_changed_and_our_own(tmp_path):
    args = CLPTrainingArguments(str(tmp_path), adam_beta1=0.8, hub_token="hf_secret", run_name="one", meta_every=3)
    training, own = training_settings(args)
    assert (training["learning_rate"], training["adam_beta1"]) == (args.learning_rate, 0.8)
    assert not {"adam_beta2", "output_dir", "hub_token", "run_name", "accelerator_config"} & set(training)
    assert own["meta_every"] == 3
    assert "mask_shape" in own
    settings = plain_settings([DataArguments(dataset_name=str(tmp_path / "birds")), ModelArguments(token="hf_secret")])
    assert settings["dataset_name"] == "birds"
    assert settings["model_name_or_path"] == "tf_efficientnet_lite0"
    assert not {"token", "group_column"} & set(settings)
