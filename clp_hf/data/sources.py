"""Data sets as they are in their source: the Hub, folders, parquet files, the embedded set."""

from __future__ import annotations

from pathlib import Path

import datasets
from datasets import Dataset, DatasetDict, load_dataset, load_dataset_builder, load_from_disk
from huggingface_hub import constants
from huggingface_hub.errors import RevisionNotFoundError

from ..utils.connection import hub_failure
from .embedded import kept_birds
from .folders import (
    ARCHIVE_SUFFIXES,
    METADATA,
    TABLE_SUFFIXES,
    files_below,
    has_waterbirds_layout,
    is_image,
    read_image_folder,
    read_parquet,
    read_waterbirds,
    split_parquet_files,
)
from .own_files import read_from

FORMATS = (
    "Read are: a folder with a folder of images for each class (in folders train, validation, test, or not); images "
    "with metadata.csv beside them (columns file_name, label and others); parquet files; what save_to_disk wrote; "
    "Waterbirds' own folder; a name on the Hub; `embedded`"
)


def read_splits(
    name_or_path: str | Path | DatasetDict,
    config_name: str | None = None,
    cache_dir: str | None = None,
    *,
    token: str | None = None,
    revision: str | None = None,
) -> DatasetDict:
    """The splits and columns as they are in the source.

    Args:
        name_or_path: as for `load_classification_dataset`.
        config_name: configuration of a Hub data set.
        cache_dir: of downloads, and of the embedded birds once they are drawn.
        token: of the Hub, for what is private or gated; by default the one of `hf auth login`.
        revision: of a Hub data set: a branch, tag or commit; by default main.

    Raises:
        ConnectionError: the Hub cannot be reached, or gives no such data set, or not to this user. ValueError: a folder
            or file that is read as no data set, or not whole, or that names files outside it; says what was found, and
            the way.
    """
    if isinstance(name_or_path, DatasetDict):
        return read_from(name_or_path, None)
    if name_or_path == "embedded":
        return kept_birds(cache_dir)
    path = Path(name_or_path)
    if path.is_file():
        return read_from(_read_file(path.resolve(), cache_dir), path.resolve().parent)
    if path.is_dir():
        return read_from(_read_folder(path.resolve(), config_name, cache_dir), path.resolve())
    if path.is_absolute() or str(name_or_path).startswith((".", "~")):
        raise ValueError(f"There is no folder or file {str(name_or_path)!r}. {FORMATS}.")
    return read_from(_read_hub(str(name_or_path), config_name, cache_dir, token, revision), None)


def _read_file(path: Path, cache_dir: str | None) -> DatasetDict:
    if path.suffix.lower() != ".parquet":
        raise ValueError(f"{str(path)!r} is not read as a data set: {_advice(path)} {FORMATS}.")
    return read_parquet({"train": [str(path)]}, cache_dir)


def _advice(path: Path) -> str:
    if path.suffix.lower() in ARCHIVE_SUFFIXES:
        return "unpack it, and give the folder."
    if path.suffix.lower() in TABLE_SUFFIXES:
        return (
            "put it beside the images as metadata.csv, with the images' paths from there in a column file_name, and "
            "give that folder."
        )
    return f"it is a {path.suffix or 'file without an ending'}."


def _read_folder(folder: Path, config_name: str | None, cache_dir: str | None) -> DatasetDict:
    if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
        saved = load_from_disk(str(folder))
        return DatasetDict(train=saved) if isinstance(saved, Dataset) else saved
    if has_waterbirds_layout(folder):
        return read_waterbirds(folder)
    files = files_below(folder)
    tables = [path for path in files if path.suffix.lower() == ".parquet" and path.name not in METADATA]
    if _is_configured(folder):
        builder = load_dataset_builder(str(folder), config_name, cache_dir=cache_dir)
        chosen = {split: list(names) for split, names in (builder.config.data_files or {}).items()}
        if chosen and all(name.endswith(".parquet") for names in chosen.values() for name in names):
            return read_parquet(chosen, cache_dir)
        return load_dataset(str(folder), config_name, cache_dir=cache_dir)
    if tables:
        return read_parquet(split_parquet_files(folder, tables), cache_dir)
    if any(map(is_image, files)):
        return read_image_folder(folder, cache_dir)
    if any(path.suffix.lower() in (".arrow", ".jsonl", ".json", ".csv") for path in files):
        return load_dataset(str(folder), config_name, cache_dir=cache_dir)
    found = [path for path in files if path.suffix.lower() in ARCHIVE_SUFFIXES]
    problem = f"{found[0].name}: {_advice(found[0])}" if found else "it doesn't contain any data files."
    raise ValueError(f"{str(folder)!r} is not read as a data set: {problem} {FORMATS}.")


def _is_configured(folder: Path) -> bool:
    """Whether the folder's card says which files are which split."""
    card = folder / "README.md"
    if not card.is_file():
        return False
    head = card.read_text(encoding="utf-8", errors="replace").split("\n---", 1)[0]
    return head.startswith("---") and "\nconfigs:" in head


def _read_hub(
    name: str, config_name: str | None, cache_dir: str | None, token: str | None, revision: str | None
) -> DatasetDict:
    reason = hub_failure()
    offline = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = offline or reason is not None  # then it looks into its cache, and does not retry
    try:
        return load_dataset(name, config_name, cache_dir=cache_dir, token=token, revision=revision)
    except OSError as error:
        told = f"{name!r} is neither a local path nor a data set that could be fetched from the Hub "
        raise ConnectionError(told + _refused(name, reason or error, revision)) from error
    finally:
        datasets.config.HF_HUB_OFFLINE = offline


def _refused(name: str, reason: Exception, revision: str | None) -> str:
    """Why the Hub gave no data set, and what to do."""
    why = f"({type(reason).__name__}: {reason}). "
    if "is a gated dataset" in str(reason):  # which is not said by its type, nor by that of its cause
        page = f"{constants.ENDPOINT}/datasets/{name}"
        return f"{why}It is gated: accept its terms on {page}, and log in (hf auth login) or give --token."
    if isinstance(reason.__cause__, RevisionNotFoundError):
        return f"{why}It has no revision {revision!r}: give one of its own, --dataset_revision main."
    return (
        f"{why}Check the name and the connection, log in (hf auth login) or give --token if it is private, or work "
        "offline with a local folder, a parquet file or `embedded`, the birds drawn here."
    )
