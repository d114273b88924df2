"""Data sets by name from a Hub on loopback: public, gated and private ones, of a revision, with the true client."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hub_server import TOKEN, hub_server
from typer.testing import CliRunner

from clp_hf.cli import app
from clp_hf.data import embedded_birds

ROOT = Path(__file__).parents[2]
LOAD = """
import json, sys
from clp_hf.data import load_classification_dataset
for name, token, revision in json.loads(sys.argv[1]):
    try:
        splits = load_classification_dataset(name, token=token, revision=revision)
        print(json.dumps({split: len(images) for split, images in splits.items()}))
    except ConnectionError as error:
        print(json.dumps(str(error)))
"""


@pytest.fixture
def hub():
    """A Hub with birds on land and water, without masks: at first 40 training images, then 80."""
    splits = embedded_birds(n_train=80, n_validation=16, n_test=16, image_size=32, correlation=0.75)
    splits = splits.remove_columns(["mask", "group"])

    def parquet(split):
        buffer = io.BytesIO()
        split.to_parquet(buffer)
        return buffer.getvalue()

    files = {f"data/{name}-00000-of-00001.parquet": parquet(split) for name, split in splits.items()}
    files["README.md"] = b"# Birds\n"
    before = files | {"data/train-00000-of-00001.parquet": parquet(splits["train"].select(range(40)))}
    with hub_server() as server:
        server.commits = server.add_dataset("tester/birds", before, files)
        server.add_dataset("tester/gated", files, gated=True)
        server.add_dataset("tester/private", files, private=True)
        yield server


@pytest.fixture
def started(hub, tmp_path):
    """Run Python as somebody who is not logged in."""

    def run(*words):
        variables = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        variables |= {
            "HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1",
            "PYTHONPATH": str(ROOT),
        }  # fmt: skip
        command = [sys.executable, *words]
        return subprocess.run(command, capture_output=True, text=True, env=variables, cwd=tmp_path)

    return run


def test_by_name_token_and_revision(hub, started):
    whole, before = {"train": 80, "validation": 16, "test": 16}, hub.commits[0]
    wanted = [
        (("tester/birds", None, None), whole),
        (("tester/birds", None, before), whole | {"train": 40}),
        (("tester/gated", None, None), f"accept its terms on {hub.endpoint}/datasets/tester/gated, and log in"),
        (("tester/gated", TOKEN, "main"), whole),
        (("tester/private", None, None), "log in (hf auth login) or give --token if it is private"),
        (("tester/private", TOKEN, None), whole),
        (("tester/birds", None, "old"), "It has no revision 'old': give one of its own, --dataset_revision main."),
    ]
    done = started("-c", LOAD, json.dumps([asked for asked, _ in wanted]))
    assert done.returncode == 0, done.stderr
    for found, (asked, expected) in zip(map(json.loads, done.stdout.splitlines()), wanted, strict=True):
        assert found == expected if isinstance(expected, dict) else expected in found, (asked, found)


@pytest.mark.parametrize(
    ("command", "reads"),
    [
        ("groups", "discovery.command.load_classification_dataset"),
        ("labels", "suspect_labels.command.load_classification_dataset"),
        ("inspect", "inspection.source.read_splits"),
        ("evaluate", "experiment.evaluation.read_splits"),
    ],
)
def test_commands_read_data_by_token_and_revision(monkeypatch, command, reads):
    given, loaded = [], []
    monkeypatch.setattr(f"clp_hf.{reads}", lambda *args, **kwargs: given.append(kwargs) or sys.exit())
    for part in ("load_image_classifier", "load_image_processor"):
        monkeypatch.setattr(f"clp_hf.experiment.evaluation.{part}", lambda *args, **kwargs: loaded.append(kwargs))
    words = [command, "me/birds", "--token", TOKEN, "--dataset_revision", "old"]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert not done.exit_code, done.stderr
    assert [(kwargs["token"], kwargs["revision"]) for kwargs in given] == [(TOKEN, "old")]
    assert all((kwargs["token"], kwargs["revision"]) == (TOKEN, "main") for kwargs in loaded)


@pytest.mark.slow
def test_the_recipe_on_gated_data_without_masks(hub, started, tmp_path):
    """The command of `waterbirds --help`: what says the place stands for the masks that are not there."""
    flags = [
        "waterbirds", "--dataset_name", "tester/gated", "--model_name_or_path", "cifar_resnet20", "--max_steps", "2",
        "--image_size", "32", "--freeze_batch_norm", "false", "--use_cpu", "true", "--meta_samples", "2",
        "--output_dir", str(tmp_path / "run"),
    ]  # fmt: skip
    done = started("-m", "clp_hf.experiment.launch", *flags, "--token", TOKEN)
    assert done.returncode == 0, done.stderr
    assert "tester/gated has no masks: --evidence attribute and no causal images are chosen" in done.stderr
    assert "Not Waterbirds as published (Sagawa et al. 2020): the train split has 80 images" in done.stderr
    assert TOKEN not in (tmp_path / "run" / "README.md").read_text()
