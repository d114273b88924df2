"""A folder that takes what a run writes, found out before it trains; and a disk that is full, said so."""

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import nn
from transformers import TrainingArguments

FULL = (errno.ENOSPC, errno.EDQUOT)
SAID = ("No space left", "Disk quota exceeded", "unexpected pos", "PytorchStreamWriter failed")  # of libraries


def check_writable(folder: str | os.PathLike) -> None:
    """Make the folder where there is none, and write to it.

    Raises:
        ValueError: it cannot be; says why.
    """
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"0")
    except OSError as error:
        raise ValueError(
            f"output_dir {os.fspath(folder)!r} cannot be written: {error.strerror or error}. Choose another, or mend "
            "its permissions or its disk."
        ) from error


def check_room(folder: str | os.PathLike, needed: int) -> None:
    """Refuse a disk that has no room for `needed` bytes.

    Raises:
        ValueError: names the folder, what is needed and what is free.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ValueError(
            f"The disk of output_dir {os.fspath(folder)!r} has {_size(free)} free, and a checkpoint takes about "
            f"{_size(needed)}. Make room, choose another output_dir, or set save_strategy='no' or save_only_model=True."
        )


def checkpoint_bytes(model: nn.Module, args: TrainingArguments) -> int:
    """About what a checkpoint takes, or without checkpoints the model at the end; rather too little than too much."""
    weights = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    if args.save_strategy == "no" or args.save_only_model:
        return weights
    trained = sum(weight.numel() * weight.element_size() for weight in model.parameters() if weight.requires_grad)
    return weights + (2 * trained if args.optim.startswith("adamw_torch") else 0)


@contextmanager
def full_disk_named(folder: str | os.PathLike, needed: int, last_whole: Callable[[], str | None]) -> Iterator[None]:
    """Say that the disk is full, and not what a library makes of it.

    Args:
        folder: that is written to, inside.
        needed: bytes.
        last_whole: finds the checkpoint that is still there.

    Raises:
        OSError: of `errno.ENOSPC`.
    """
    try:
        yield
    except Exception as error:  # safetensors and torch have their own
        free = shutil.disk_usage(_existing(folder)).free
        if not _is_full(error, free, needed):
            raise
        last = last_whole()
        whole = f"{last} is whole: resume from it" if last else "No checkpoint is whole"
        raise OSError(
            errno.ENOSPC,
            f"The disk is full: writing a checkpoint of about {_size(needed)} failed with {_size(free)} free. {whole}. "
            "Make room, and keep fewer with save_total_limit",
            os.fspath(folder),
        ) from error


def _is_full(error: BaseException, free: int, needed: int) -> bool:
    while error is not None:
        if isinstance(error, OSError) and error.errno in FULL:
            return True
        # torch's own words for a write that was cut short do not say why
        if any(words in str(error) for words in SAID[:2]) or (
            free < needed and any(words in str(error) for words in SAID)
        ):
            return True
        error = error.__cause__ or error.__context__
    return False


def _existing(folder: str | os.PathLike) -> str:
    folder = os.path.abspath(folder)
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    return folder


def _size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB" if count < 1e9 else f"{count / 1e9:,.1f} GB"
