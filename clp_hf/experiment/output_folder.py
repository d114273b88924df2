"""An output folder in which an older run lies: refused, or cleared, before a new one is written over it."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers.trainer_utils import get_last_checkpoint
from transformers.utils import logging

from ..hub.record import FIGURES_FOLDER, RECORD_FILE, RunRecord
from ..perturbation import META_NETWORKS
from .methods import METHODS
from .two_stages import FOLDER

logger = logging.get_logger(__name__)

# What trainers write; what else lies in the folder is the user's, and stays.
RESULTS = ("*_results.json", FIGURES_FOLDER)
WRITTEN = (
    *RESULTS, "checkpoint-*", "features", *{network.FOLDER for network in META_NETWORKS.values()} - {None},
    "config.json",
    "model*.safetensors*", FOLDER, "preprocessor_config.json", "training_args.bin", "trainer_state.json", "README.md",
    RECORD_FILE,
)  # fmt: skip


def method_named(settings: Mapping[str, Any]) -> str | None:
    """The method that has these training arguments, the most particular one; None for those of no trainer of CLP."""
    if "meta_every" not in settings:
        return None
    fitting = [name for name, own in METHODS.items() if all(settings.get(key) == value for key, value in own.items())]
    return max(fitting, key=lambda name: len(METHODS[name]))


def check_output_folder(
    folder: str,
    method: str,
    model: str,
    overwrite: bool,
    resumed: bool = False,
    resumable: bool = True,
    or_method: str | None = None,
) -> None:
    """Refuse a folder in which another run lies, whose files would stay beside those of the new one.

    Args:
        folder: `output_dir` of a run; it need not exist.
        method: of the new run: as `method_named` has it, of two stages its name, of a repair the name of its card.
        model: what the new run begins with, a name or a folder.
        overwrite: whether the folder may be cleared.
        resumed: whether the new run goes on from a checkpoint.
        resumable: whether it could.
        or_method: what the new run may turn out to be, once its data are known.

    Raises:
        ValueError: there is a run of another method, or one that has not ended and is not resumed; or it is to be both
            cleared and resumed, or begun with.
    """
    if overwrite and _is_written(Path(model), Path(folder)):
        raise ValueError(
            f"--overwrite_output_dir removes the model that this run begins with, {model!r}: give another --output_dir."
        )
    if overwrite and resumed:
        raise ValueError(
            "--overwrite_output_dir removes the older run that --resume_from_checkpoint goes on from: leave one out."
        )
    if overwrite or not Path(folder).is_dir():
        return
    fix = "Give another --output_dir, or remove the older run by --overwrite_output_dir true."
    if (Path(folder) / RECORD_FILE).is_file():
        try:
            record = RunRecord.load(folder)
        except ValueError as error:
            raise ValueError(f"{folder!r} holds a run that cannot be read ({error}). {fix}") from error
        staged = record.settings["data and model"].get("method")
        found = staged or method_named(record.settings["method"]) or record.method
        if found not in (method, or_method):
            raise ValueError(
                f"{folder!r} holds a run of another method, {found}, and files of it would stay beside the model of "
                f"{method}. {fix}"
            )
    elif not resumed and (newest := get_last_checkpoint(folder)):
        go_on = "Go on with it by --resume_from_checkpoint true. " if resumable else ""
        raise ValueError(f"{folder!r} holds a run that has not ended, up to {Path(newest).name}. {go_on}{fix}")


def clear_output_folder(folder: str, overwrite: bool) -> None:
    """Remove what an older run has left: its results and pictures, which are not all written anew; or everything.

    Args:
        folder: `output_dir` of a run.
        overwrite: also its model and checkpoints. Files that no trainer writes stay in any case.
    """
    if not Path(folder).is_dir():
        return
    unfinished = get_last_checkpoint(folder) or (Path(folder) / FOLDER).is_dir()
    if not (Path(folder) / RECORD_FILE).is_file() and not (overwrite and unfinished):
        return  # no run
    for pattern in WRITTEN if overwrite else RESULTS:
        for path in Path(folder).glob(pattern):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    logger.warning(f"{folder!r}: {'an older run was removed' if overwrite else 'an older run is written over'}.")


def _is_written(path: Path, folder: Path) -> bool:
    """Whether a folder is one that a trainer writes its model to, or one of its checkpoints."""
    path, folder = path.resolve(), folder.resolve()
    return path.is_dir() and (path == folder or (path.parent == folder and path.match("checkpoint-*")))
