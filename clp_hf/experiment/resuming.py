"""Which checkpoints runs go on from."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import get_last_checkpoint
from transformers.utils import logging

logger = logging.get_logger(__name__)

NEWEST = ("true", "last")


def goes_on(asked: str | None) -> bool:
    """Whether `resume_from_checkpoint` asks for anything."""
    return asked is not None and asked.lower() != "false"


def checkpoints(
    asked: str | None, folders: Mapping[str, str], firsts: Mapping[str, str] = MappingProxyType({})
) -> dict[str, str | None]:
    """The checkpoint that each of several runs goes on from; None for one that begins anew.

    Args:
        asked: `resume_from_checkpoint`: a checkpoint's folder; `true` or `last`, the newest one of every run, in its
            own folder; `false` or None, none.
        folders: `output_dir` of every run, by its name.
        firsts: of those of two stages, that of the first one, which goes on by itself.

    Raises:
        ValueError: the folder is no checkpoint, no run has one, or one checkpoint is given for several runs.
    """
    if not goes_on(asked):
        return dict.fromkeys(folders)
    if asked.lower() in NEWEST:
        return _newest(asked, folders, [path for path in firsts.values() if os.path.isdir(path)])
    if len(folders) > 1:
        raise ValueError(
            f"--resume_from_checkpoint {asked} is one checkpoint for the {len(folders)} runs {', '.join(folders)}. "
            "With --resume_from_checkpoint last each goes on from its own newest one."
        )
    if not os.path.isdir(asked):
        raise ValueError(
            f"--resume_from_checkpoint: there is no folder {asked!r}. Give a checkpoint's folder, or `last` for the "
            f"newest one in {', '.join(folders.values())}."
        )
    if any(Path(path).resolve() in Path(asked).resolve().parents for path in firsts.values()):
        raise ValueError(
            f"--resume_from_checkpoint {asked} is of a first stage. With --resume_from_checkpoint last the stage that "
            "was interrupted goes on from its own newest one."
        )
    if newest := get_last_checkpoint(asked):
        raise ValueError(
            f"--resume_from_checkpoint {asked} is a run's folder, and not a checkpoint. Its newest one is {newest}."
        )
    if not os.path.isfile(os.path.join(asked, TRAINER_STATE_NAME)):
        raise ValueError(
            f"--resume_from_checkpoint {asked} is no checkpoint: it has no {TRAINER_STATE_NAME}. A run writes them to "
            "folders named checkpoint- and the step."
        )
    return dict.fromkeys(folders, asked)


def _newest(asked: str, folders: Mapping[str, str], begun: Sequence[str]) -> dict[str, str | None]:
    found = {name: get_last_checkpoint(path) if os.path.isdir(path) else None for name, path in folders.items()}
    if not any(found.values()) and not begun:
        raise ValueError(
            f"--resume_from_checkpoint {asked}: there is no checkpoint in {' or '.join(folders.values())}. To train "
            "from the beginning leave the flag out; checkpoints are written as --save_strategy and --save_steps say."
        )
    for name, checkpoint in found.items():
        if checkpoint is None:
            logger.warning(f"{name} has no checkpoint in {folders[name]} yet, and begins anew.")
    return found
