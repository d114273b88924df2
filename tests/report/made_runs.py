"""Runs as trainers leave them, with the predictions that a test wants: nothing is trained."""

import json
import shutil
from pathlib import Path

import numpy as np

from clp_hf.hub.predictions import PREDICTIONS_FILE, Predictions
from clp_hf.metrics import classification_metrics

FROZEN = Path(__file__).parents[1] / "frozen" / "group_dro"
BIRDS = ("landbird", "waterbird")
GROUPS = tuple(f"{bird}_on_{place}" for bird in BIRDS for place in ("land", "water"))


def made_run(folder, logits, labels, groups=None, *, names=BIRDS, group_names=GROUPS, seed=0, **record):
    """The folder of a run with these test logits; further keywords replace what its record has, or its settings."""
    folder.mkdir(parents=True)
    for file in ("_run.json", "trainer_state.json"):
        shutil.copy(FROZEN / file, folder)
    group_names = None if groups is None else list(group_names)
    found = json.loads((folder / "_run.json").read_text())
    found["settings"]["training"] |= {"seed": seed} | record.pop("settings", {})
    found |= {"label_names": list(names), "group_names": group_names, "dataset": "birds", **record}
    (folder / "_run.json").write_text(json.dumps(found))
    ids = [f"{row:05}" for row in range(len(labels))]
    Predictions.of("test", logits, labels, groups, ids, [f"test/{row}.jpg" for row in ids]).save(folder)
    metrics = classification_metrics(logits, labels, groups, label_names=list(names), group_names=group_names)
    results = {f"test_{name}": value for name, value in metrics.items()} | {"test_runtime": 1.0}
    (folder / "all_results.json").write_text(json.dumps(results))
    return folder


def drawn(n, skill, seed=0, classes=2, places=2):
    """Logits that are right the more often the larger `skill`, of labels and groups that are always the same."""
    fixed, generator = np.random.default_rng(0), np.random.default_rng([seed, round(100 * skill)])
    labels = fixed.integers(0, classes, n)
    groups = labels * places + fixed.integers(0, places, n)
    logits = generator.normal(size=(n, classes))
    logits[np.arange(n), labels] += skill
    return logits, labels, groups


def without_predictions(folder):
    """The folder, as an earlier version left it."""
    (folder / PREDICTIONS_FILE).unlink()
    return folder
