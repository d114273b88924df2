"""Where the runs are: folders that hold one, found in folders of folders, and those that died before they were done."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import get_last_checkpoint

from ..base.checkpoints import CHECKPOINT
from ..hub.record import RECORD_FILE
from ..utils.locks import LOCK
from ..utils.text import one_line

RESULTS_FILE = "all_results.json"
WRITTEN_BY = {
    RECORD_FILE: "trainer.create_model_card()",
    TRAINER_STATE_NAME: "trainer.save_state()",
    RESULTS_FILE: "trainer.save_metrics(split, trainer.evaluate(…))",
}


@dataclass(frozen=True)
class LeftOut:
    """A run that a report has no section of: what it is called, and why, in whole sentences."""

    name: str
    reason: str

    @classmethod
    def of(cls, folder: Path, name: str, error: ValueError) -> LeftOut:
        """What is wrong with a folder, and how far its training came where that can be read."""
        return cls(name, f"{error}{_how_far(folder)}")


def check_there_are_runs(paths: Sequence[Path]) -> None:
    """Raise a ValueError unless these are folders, each named once, and any."""
    if not paths:
        raise ValueError(
            "There is no run to report on: name one folder or more, each written by a recipe or a trainer."
        )
    for index, path in enumerate(paths):
        if path.resolve() in [other.resolve() for other in paths[:index]]:
            raise ValueError(f"The run {path} is named twice: name every run once.")
        if not path.is_dir():
            raise ValueError(f"{path} is not a folder: name the output_dir of a run, or the folder around several.")


def found_runs(paths: Sequence[Path]) -> list[Path]:
    """The runs that these folders are or hold, at any depth, whole or not, each once.

    Raises:
        ValueError: a folder holds none.
    """
    found: dict[Path, Path] = {}
    for path in paths:
        below = [Path(folder) for folder in _walked(path) if _begun(Path(folder))]
        if not below:
            raise ValueError(
                f"There is no run in {path}: name the output_dir of clp-hf train or repair, or a folder around several "
                f"of them. What a run is known by is its {RECORD_FILE}, which trainer.create_model_card() writes too."
            )
        for run in below:
            found.setdefault(run.resolve(), run)
    return list(found.values())


def check_files(folder: Path, written_by: Mapping[str, str]) -> None:
    """Raise a ValueError that names the files that a run's folder lacks, and what writes each."""
    missing = [f"{file} (written by {writer})" for file, writer in written_by.items() if not (folder / file).is_file()]
    if missing:
        raise ValueError(
            f"{folder} is not the folder of a complete run: it lacks {', '.join(missing)}. A recipe writes them all, "
            "the last of them when it ends."
        )


def _walked(top: Path) -> list[str]:
    """The folder and all below it, in the order of their names, without those that are parts of a run."""
    folders = []
    for folder, names, _ in os.walk(top):
        names[:] = sorted(name for name in names if not (name.startswith(("_", ".")) or CHECKPOINT.fullmatch(name)))
        folders.append(folder)
    return folders


def _begun(folder: Path) -> bool:
    return (
        any((folder / file).is_file() for file in (*WRITTEN_BY, LOCK)) or get_last_checkpoint(str(folder)) is not None
    )


def _how_far(folder: Path) -> str:
    newest = get_last_checkpoint(str(folder))
    try:
        state = json.loads((Path(newest or folder) / TRAINER_STATE_NAME).read_text("utf-8"))
        step, steps = int(state["global_step"]), int(state["max_steps"])
        scores = [entry["eval_worst_group_accuracy"] for entry in state["log_history"] if "eval_accuracy" in entry]
        told = f" It was trained to step {step} of {steps} at least"
        told += f", where the worst group of validation had {100 * float(scores[-1]):.1f} %." if scores else "."
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        OverflowError,
        RecursionError,
    ):  # there is none, or it was cut off
        return ""
    return told + (f" --resume_from_checkpoint last goes on from {one_line(Path(newest).name)}." if newest else "")
