"""Paths in a data set count only below the data set's own folder: a row must not pull in another file of this machine.

A table (parquet, JSON, CSV) can hold `{"bytes": null, "path": "/any/file"}`: whoever wrote it would decide which files
are read, and embedded in what is written. Paths that the user's own Python code put into a data set are the user's.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, DatasetDict
from huggingface_hub import constants

LOOKED_UP_BY_DATASETS = ("imagefolder",)  # its paths are those of the files that it found


def read_from(splits: DatasetDict, root: Path | None) -> DatasetDict:
    """Splits that know the folder they were read from, and name no file outside it.

    Args:
        splits: as `datasets` has read them.
        root: the folder; None for one of the Hub, whose files lie in the caches of the Hugging Face libraries.

    Raises:
        ValueError: a path outside.
    """
    for name, split in splits.items():
        if root is not None:
            # the one field of a data set that says what it was made of, and goes through all that is done to it
            split.info.download_checksums = {os.path.realpath(root): {"num_bytes": None, "checksum": None}}
        check_own_files(split, name)
    return splits


def check_own_files(split: Dataset, name: str) -> None:
    """Refuse a split in which an image or another file is named by a path outside its own folder.

    Links are followed. Files in the caches of `datasets` and the Hub, where downloads are, may be named too.

    Args:
        split: of any columns; also nested ones are looked through.
        name: of it, for the message.

    Raises:
        ValueError: names the split, the column and the path.
    """
    roots = list(split.info.download_checksums or ())
    if not roots and split.info.builder_name in (None, *LOOKED_UP_BY_DATASETS):
        return
    allowed = (*roots, *_caches())
    for column in split.column_names:
        for chunk in split.data.column(column).chunks:
            for path in _paths(chunk):
                if not _is_below(path, allowed):
                    raise ValueError(
                        f"Split {name!r}, column {column!r}: a row names the file {path!r}, which is outside "
                        f"{roots[0] if roots else 'the cache of downloads'!r}. Paths count only below the data set's "
                        "own folder, links followed: copy the file there, or store the image itself in the data set."
                    )


def _caches() -> Iterable[str]:
    known = (datasets.config.HF_DATASETS_CACHE, datasets.config.DOWNLOADED_DATASETS_PATH, constants.HF_HUB_CACHE)
    return [os.path.realpath(folder) for folder in known]


def _paths(array: pa.Array) -> Iterator[str]:
    """The paths of files, nested ones too, whose content the array does not hold itself."""
    kind = array.type
    if isinstance(array, pa.ExtensionArray):
        yield from _paths(array.storage)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        yield from _paths(array.flatten())
    elif pa.types.is_struct(kind):
        names = [field.name for field in kind]
        if {"bytes", "path"} <= set(names):
            named = pc.and_(pc.is_null(pc.struct_field(array, "bytes")), pc.is_valid(pc.struct_field(array, "path")))
            yield from filter(None, pc.struct_field(array.filter(named), "path").to_pylist())
        else:
            for name in names:
                yield from _paths(pc.struct_field(array, name))


def _is_below(path: str, roots: Iterable[str]) -> bool:
    folder, name = os.path.split(path)
    real = os.path.join(_real(folder), name)
    real = os.path.realpath(real) if os.path.islink(real) or name in (os.pardir, os.curdir) else real
    return any(real.startswith(root + os.sep) for root in roots)


@lru_cache(maxsize=1024)
def _real(folder: str) -> str:
    return os.path.realpath(folder)
