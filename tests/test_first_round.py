"""The README's commands for your own images, as a person with 200 photos runs them, one after the other."""

import json
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pytest
import torch
from PIL import Image

from clp_hf import load_image_classifier

pytest.importorskip("gradio")
pytest.importorskip("matplotlib")

ROOT = Path(__file__).parents[1]
CLP_HF = [sys.executable, "-m", "clp_hf"]
# What a run tells of its progress on standard error; all else would be a warning, and there is nothing to warn of here.
PROGRESS = re.compile(
    r"Training \d+ steps|step \d+ of \d+|validation, step|accuracy, %  |.+  +[\d.–]+  +[\d.–]+$|Opening |Asking |$"
)
SMALL = ["--model_name_or_path", "backbone"]
OF_SIZE = {
    "inspect": SMALL,
    "train": [*SMALL, "--image_size", "32", "--max_steps", "2", "--use_cpu", "true", "--report_to", "none"],
    "report": [],
    "labels": [*SMALL, "--image_size", "32"],
}


def commands() -> dict[str, list[str]]:
    """Those of the README's section, by the name of the subcommand."""
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("\n## Your own images\n")[1]
    lines = section.split("```bash\n")[1].split("```")[0].splitlines()
    typed = [shlex.split(line, comments=True) for line in lines if line.startswith("clp-hf ")]
    return {words[1]: words[1:] for words in typed}


@pytest.fixture
def here(tmp_path):
    """A folder with 200 photos of two classes, whose place mostly goes with them, and a small classifier."""
    rng = np.random.default_rng(0)
    for label, name in enumerate(("Spatz über", "Ente")):
        (tmp_path / "my_birds" / name).mkdir(parents=True)
        for index in range(100):
            place = label if index % 10 else 1 - label  # of nine in ten that of their class
            pixels = rng.integers(0, 60, (40, 48, 3), dtype=np.uint8)
            pixels[..., 1 + place] += 120
            pixels[12:28, 16:32] = (230, 200, 40) if label else (120, 40, 20)
            Image.fromarray(pixels).save(tmp_path / "my_birds" / name / f"IMG_{index}.jpg")
    torch.manual_seed(0)
    model = load_image_classifier("test_resnet", num_labels=5, image_size=32, pretrained=False)
    model.save_pretrained(tmp_path / "backbone")
    return tmp_path


@pytest.fixture
def environment(here):
    own = {"PYTHONPATH": str(ROOT), "HF_HOME": str(here / "hub"), "HF_HUB_OFFLINE": "1"}
    return {**os.environ, **own}


def warnings(text: str) -> list[str]:
    return [line for line in text.splitlines() if not PROGRESS.match(line)]


def served(words: list[str], folder: Path, environment: dict[str, str]) -> str:
    """The page that a command serves."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with subprocess.Popen(
        [*words, "--port", str(port)], cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    ) as process:  # fmt: skip
        try:
            while process.poll() is None:
                try:
                    with urlopen(f"http://127.0.0.1:{port}/") as page:
                        return page.read().decode()
                except OSError:
                    time.sleep(0.2)
            pytest.fail(process.stderr.read())
        finally:
            process.terminate()


def test_two_hundred_photos_from_inspect_to_demo(here, environment):
    typed = commands()
    assert list(typed) == ["inspect", "train", "report", "labels", "demo"]
    said = {}
    for name, flags in OF_SIZE.items():
        words = [*CLP_HF, *typed[name], *flags]
        done = subprocess.run(words, cwd=here, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert warnings(done.stderr) == []
        said[name] = done.stdout
    assert "Classes        Ente 100, Spatz über 100" in said["inspect"]
    assert "The background alone tells the class" in said["inspect"]
    assert "Next:" in said["inspect"]
    found, helps = said["train"].splitlines()[:2]
    assert found.startswith("Found: 160 training images, Ente 80, Spatz über 80, labels only; no validation split, so")
    assert "40 images, some of every class, are held out (seed 0)" in found
    assert "Chosen: --method clp --evidence bias --counterfactual_infills none --factual_infills none (" in found
    assert helps.startswith("More would help: masks, to swap backgrounds (clp-hf masks --dataset_name my_birds)")
    assert "clp-hf groups my_birds" in helps
    assert re.search(r"worst class .*\|", said["train"])
    for run in ("erm", "clp"):
        images = json.loads((here / "runs" / "classify" / run / "_run.json").read_text())["images"]
        assert images["train images"] == {"Ente": 80, "Spatz über": 80}
        assert images["validation images"] == {"Ente": 10, "Spatz über": 10}
    for page in ("inspection.html", "report.html"):
        assert "<img" in (here / page).read_text(encoding="utf-8")
    assert "Suspect labels" in (here / "suspect_labels.html").read_text(encoding="utf-8")
    assert (here / "suspect_labels.csv").read_text(encoding="utf-8").startswith("rank,split,index,file,label,should_be")
    assert "of 200 labels are suspect" in said["labels"]
    demo = [word.replace("METHOD", "clp") for word in typed["demo"]]
    for folder in demo[2::2]:
        assert load_image_classifier(here / folder).config.id2label == {0: "Ente", 1: "Spatz über"}
    assert "Where CLP looks" in served([*CLP_HF, *demo], here, environment)
