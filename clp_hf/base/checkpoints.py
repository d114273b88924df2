"""Checkpoints that are whole, and whose run is known: a manifest in each, checked before anything is read from it."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, sort_checkpoints
from transformers.utils import logging

logger = logging.get_logger(__name__)

MANIFEST = "manifest.json"
STAGING = "_incomplete"  # names with a leading _ are not pushed to the Hub
EARLIER = "_earlier"
CHECKPOINT = re.compile(rf"{PREFIX_CHECKPOINT_DIR}-(\d+)")


def write_manifest(checkpoint: str | os.PathLike, run: Mapping[str, Any]) -> None:
    """Write the names, sizes and digests of all files of a checkpoint, and whose they are, into its last file.

    Args:
        checkpoint: a folder, with all its other files.
        run: as of `clp_hf.base.identity`.
    """
    folder = Path(checkpoint)
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    files = {
        name: {"size": (folder / name).stat().st_size, "sha256": _digest(folder / name)}
        for name in names
        if name != MANIFEST
    }
    manifest = {"run": run, "files": files}
    manifest["sha256"] = _digest_of(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def checked_manifest(checkpoint: str | os.PathLike) -> dict[str, Any] | None:
    """The run that a checkpoint is of, once all its files are what they were when it was written.

    Returns:
        `run` of `write_manifest`; None for a checkpoint of an earlier version, which has no manifest.

    Raises:
        ValueError: names the files that are missing or damaged, and the newest other checkpoint that is whole.
    """
    folder = Path(checkpoint)
    if not folder.is_dir():
        raise ValueError(f"There is no checkpoint {folder}.")
    manifest, missing, damaged = _examine(folder)
    if not missing and not damaged:
        return None if manifest is None else manifest["run"]
    other = newest_whole(folder.parent, other_than=folder)
    advice = f"Resume from {other}, which is whole" if other else "No other checkpoint beside it is whole: start anew"
    if missing:
        what = f"is not a complete checkpoint of a CLP run: {', '.join(missing)} is missing"
    else:
        what = f"is damaged: {', '.join(damaged)} is not what was written"
    raise ValueError(f"{folder} {what}. {advice}.")


def newest_whole(run_folder: str | os.PathLike, other_than: Path | None = None) -> str | None:
    """The checkpoint with the most steps whose files are all as they were written; None without one."""
    for checkpoint in reversed(sort_checkpoints(os.fspath(run_folder))):
        if other_than is None or Path(checkpoint).resolve() != other_than.resolve():
            manifest, missing, damaged = _examine(Path(checkpoint))
            if manifest is not None and not missing and not damaged:
                return checkpoint
    return None


def _examine(folder: Path) -> tuple[dict[str, Any] | None, list[str], list[str]]:
    """The manifest, and the files that are missing and damaged by it."""
    path = folder / MANIFEST
    if not path.is_file():
        return None, [], []
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if manifest.pop("sha256") != _digest_of(manifest):
            raise ValueError(MANIFEST)
    except (ValueError, KeyError, TypeError, AttributeError):  # ValueError: not JSON, or not UTF-8
        return None, [], [MANIFEST]
    expected = {name: (entry["size"], entry["sha256"]) for name, entry in manifest["files"].items()}
    missing = [name for name in expected if not (folder / name).is_file()]
    damaged = [
        name
        for name, (size, digest) in expected.items()
        if name not in missing and ((folder / name).stat().st_size != size or _digest(folder / name) != digest)
    ]
    return manifest, missing, damaged


def _digest_of(manifest: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _digest(path: Path) -> str:
    digest = hashlib.sha256()  # hashlib.file_digest is not in Python 3.10
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def set_earlier_aside(run_folder: str | os.PathLike) -> None:
    """Take the checkpoints of an earlier run out of the way of a new one, which must not be resumed from them.

    They are moved to `_earlier/1`, or the next free number.
    """
    folder = Path(run_folder)
    names = [path.name for path in folder.glob("*") if CHECKPOINT.fullmatch(path.name) and path.is_dir()]
    if not names:
        return
    number = 1 + max((int(path.name) for path in (folder / EARLIER).glob("*") if path.name.isdecimal()), default=0)
    aside = folder / EARLIER / str(number)
    aside.mkdir(parents=True)
    for name in names:
        os.rename(folder / name, aside / name)
    logger.warning(
        f"{folder} holds {len(names)} checkpoints of an earlier run. This run starts anew, so they were moved to "
        f"{aside}; delete them if they are not needed. (To go on from them, resume_from_checkpoint.)"
    )


def rotate(run_folder: str, staging: str, limit: int | None, kept: list[str | None]) -> None:
    """Keep at most `limit` checkpoints, the oldest go first, and never those `kept`.

    Args:
        run_folder: that they are in.
        staging: the folder's own, where what is deleted is moved first: a process that is killed meanwhile leaves no
            half of a checkpoint among the whole ones.
        limit: None or 0 for any number.
        kept: paths.
    """
    if not limit or limit < 0:
        return
    checkpoints = sort_checkpoints(run_folder, use_mtime=True)
    safe = {os.path.realpath(path) for path in kept if path}
    old = [checkpoint for checkpoint in checkpoints if os.path.realpath(checkpoint) not in safe]
    for checkpoint in old[: max(0, len(checkpoints) - max(limit, len(safe)))]:
        os.makedirs(staging, exist_ok=True)
        doomed = os.path.join(staging, f"{os.path.basename(checkpoint)}-deleted")
        os.rename(checkpoint, doomed)
        shutil.rmtree(doomed)
    shutil.rmtree(staging, ignore_errors=True)


def remove_leftovers(run_folder: str | os.PathLike) -> None:
    """Remove what killed runs left unfinished; for who has the folder to itself."""
    for path in Path(run_folder).glob(f"{STAGING}*"):
        shutil.rmtree(path, ignore_errors=True)
