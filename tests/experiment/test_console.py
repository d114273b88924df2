"""What a command prints: each warning that can be acted on, once, and nothing that libraries say of themselves."""

import logging
import os
import re
import subprocess
import sys
import warnings
from contextlib import suppress
from pathlib import Path

import pytest
import timm
from accelerate.commands import launch
from conftest import vit
from test_recipes import grouped, to_folder
from transformers import TimmWrapperImageProcessor
from transformers.utils import logging as transformers_logging

from clp_hf.experiment import processes, quiet
from clp_hf.hub.pushing import model_files
from clp_hf.modeling import load_image_classifier, load_image_processor

ROOT = Path(__file__).parents[2]
CARD = "Repo card metadata block was not found. Setting CardData to empty."


@pytest.fixture
def library(monkeypatch):
    """Have a library make its handler now, of standard error as it is in the test itself."""
    return lambda: monkeypatch.setattr(logging.getLogger("huggingface_hub"), "handlers", [logging.StreamHandler()])


@pytest.mark.parametrize("verbose", [False, True])
def test_a_warning_is_heard_once_and_some_not_at_all(library, capsys, verbose):
    library()
    with quiet(verbose):
        for _ in range(3):
            logging.getLogger("huggingface_hub.repocard").warning(CARD)
            logging.getLogger("huggingface_hub.repocard").warning("The disk is nearly full.")
    lines = [line for line in capsys.readouterr().err.splitlines() if line]
    assert lines.count("The disk is nearly full.") == (3 if verbose else 1)
    assert lines.count(CARD) == (3 if verbose else 0)


def test_a_python_warning_is_a_sentence(capsys):
    def warn(message, category=UserWarning):
        warnings.warn(message, category, stacklevel=1)

    def show(message, category, *where, **_):  # as Python itself, which pytest replaces
        sys.stderr.write(warnings.formatwarning(message, category, *where))

    with warnings.catch_warnings():
        warnings.resetwarnings()
        warnings.showwarning = show
        with quiet():
            for _ in range(2):
                warn("Fewer images than asked for.")
                warn("`torch.jit.script` is deprecated. Please switch to `torch.compile`.", FutureWarning)
                warn("'pin_memory' argument is set as true but no accelerator is found, then …")
    assert capsys.readouterr().err == "Warning: Fewer images than asked for.\n"


def test_other_processes_have_errors_alone(library, capsys, monkeypatch):
    library()
    monkeypatch.setenv("RANK", "1")
    with quiet():
        logging.getLogger("huggingface_hub.hf_api").warning("Said by the first process.")
        logging.getLogger("huggingface_hub.hf_api").error("The disk is full.")
    assert capsys.readouterr().err == "The disk is full.\n"


def test_all_is_as_before_afterwards():
    def state():
        root = [*logging.getLogger().handlers, logging.lastResort, *logging.getLogger("huggingface_hub").handlers]
        return (
            [list(handler.filters) for handler in root],
            list(warnings.filters),
            warnings.formatwarning,
            transformers_logging.is_progress_bar_enabled(),
        )

    before = state()
    with suppress(KeyboardInterrupt), quiet():
        assert not transformers_logging.is_progress_bar_enabled()
        raise KeyboardInterrupt
    assert state() == before


# ---- at the source ---------------------------------------------------------------------------------------------------


def test_accelerate_has_no_default_to_list(monkeypatch, tmp_path):
    monkeypatch.setattr("accelerate.commands.config.config_args.default_config_file", str(tmp_path / "none.yaml"))
    monkeypatch.setattr(launch, "default_config_file", str(tmp_path / "none.yaml"))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(processes, "gpus", lambda: 0)
    listed = []
    monkeypatch.setattr(launch.logger, "warning", lambda message, *_: listed.append(message))
    for words in ([], ["--cpu"], ["--cpu", "--num_processes", "2"], ["--mixed_precision", "bf16"]):
        args = launch.launch_command_parser().parse_args([*words, "recipe"])
        processes.start_all(args)
        launch._validate_launch_command(args)
    assert not listed


def test_memory_is_pinned_only_for_an_accelerator(make_trainer, monkeypatch):
    for found in (False, True):
        monkeypatch.setattr("torch.accelerator.is_available", lambda found=found: found)
        assert make_trainer(meta_every=0, use_cpu=False).args.dataloader_pin_memory == found


def test_a_processor_of_timm_is_not_asked_to_save_itself(make_trainer, monkeypatch, tmp_path):
    model = load_image_classifier(timm.create_model("test_resnet", num_classes=3), image_size=32)
    processor = load_image_processor("test_resnet", model)
    assert isinstance(processor, TimmWrapperImageProcessor)

    def refuse(*args, **kwargs):
        raise AssertionError("asked")

    monkeypatch.setattr(TimmWrapperImageProcessor, "save_pretrained", refuse)
    trainer = make_trainer(model, meta_every=0, processing_class=processor)
    trainer.save_model(str(tmp_path / "saved"))
    assert trainer.processing_class is processor
    assert model_files(tmp_path / "saved", processor) == ["config.json", "model.safetensors", "training_args.bin"]


def test_a_new_head_is_no_news_and_a_random_one_is(tmp_path, caplog):
    vit().save_pretrained(tmp_path / "three")
    vit().vit.save_pretrained(tmp_path / "backbone")
    loggers = [logging.getLogger(f"transformers.{name}") for name in ("modeling_utils", "configuration_utils")]
    for logger in loggers:
        logger.addHandler(caplog.handler)
    try:
        load_image_classifier(tmp_path / "three", num_labels=7)
        load_image_classifier(tmp_path / "backbone", id2label={0: "a", 1: "b"})
        assert not caplog.text
        load_image_classifier(tmp_path / "backbone")
    finally:
        for logger in loggers:
            logger.removeHandler(caplog.handler)
    assert "backbone does not have 2 of the weights of ViTForImageClassification" in caplog.text
    assert "classifier.bias, classifier.weight" in caplog.text
    assert "LOAD REPORT" not in caplog.text


def test_half_a_checkpoint_is_told_of(tmp_path, caplog):
    """Also where the head is to be new: the rest was to be there."""
    from safetensors.torch import load_file, save_file

    vit().save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    kept = {name: weight for name, weight in weights.items() if "layer.1" not in name and "classifier" not in name}
    save_file(kept, tmp_path / "model.safetensors", {"format": "pt"})
    load_image_classifier(tmp_path, num_labels=7)
    assert re.search(r"does not have \d+ of the weights .*layers?\.1\..* …", caplog.text)
    assert "classifier" not in caplog.text.replace("Classification", "")


# ---- all of it -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_line_of_a_run_is_known(tmp_path):
    """As a user runs it, in a pipe: two methods, evaluations, checkpoints, a card."""
    splits = {name: grouped(n, label=[0, 0, 1, 1], place=[0, 1, 0, 1]) for name, n in (("train", 8), ("test", 4))}
    splits["validation"] = grouped(6, label=[0, 0, 1, 1], place=[0, 1, 0, 1])
    words = {
        "dataset_name": to_folder(tmp_path / "data", **splits), "attribute_column": "place", "evidence": "none",
        "model_name_or_path": "test_resnet", "pretrained": False, "image_size": 32, "per_device_train_batch_size": 8,
        "meta_samples": 2, "max_steps": 4, "eval_steps": 2, "save_steps": 2, "method": "meta_lp",
        "output_dir": tmp_path / "runs",
    }  # fmt: skip
    flags = [word for name, value in words.items() for word in (f"--{name}", str(value))]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ACCELERATE_")}
    environment |= {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "FORCE_COLOR": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "clp_hf", "train", "waterbirds", "--compare", *flags],
        env=environment, capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert not {"\r", "\x1b", "{"} & set(done.stdout + done.stderr)
    known = (
        r"Which one for what you have: |Training 4 steps, |step \d of 4: epoch |validation, step \d of 4, |accuracy, %"
        r"|\w+_\d+ +[\d–]|worst group|average|A card with pictures needs|Not Waterbirds as published "
    )
    assert not [line for line in done.stderr.splitlines() if not re.match(known, line)]
    assert done.stderr.count("validation, step") == 4
    assert done.stdout.count("| accuracy, %") == 1
