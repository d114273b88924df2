"""Local folders as people have them: which file belongs to which split and class, and none left out in silence."""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import ClassLabel, Dataset, DatasetDict, Features, concatenate_datasets, load_dataset
from datasets import Image as ImageFeature
from datasets.exceptions import DatasetGenerationError
from datasets.packaged_modules.imagefolder.imagefolder import ImageFolder
from transformers.utils import logging

logger = logging.get_logger(__name__)

IMAGE_SUFFIXES = frozenset(ImageFolder.EXTENSIONS)
TABLE_SUFFIXES = (".parquet", ".arrow", ".csv", ".tsv", ".json", ".jsonl")
ARCHIVE_SUFFIXES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".zst")
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
SPLIT_WORDS = {
    "train": "train", "training": "train", "validation": "validation", "valid": "validation", "val": "validation",
    "dev": "validation", "test": "test", "testing": "test", "eval": "test", "evaluation": "test",
}  # fmt: skip
SHARD = re.compile(r"(.+)-\d{5}-of-\d{5}.*")
WATERBIRDS = {"img_filename", "y", "split", "place"}  # columns of the metadata.csv that Waterbirds comes with
WATERBIRDS_SPLITS = ("train", "validation", "test")
WATERBIRDS_NAMES = {"y": ("landbird", "waterbird"), "place": ("land", "water")}
NAMED = 5


def files_below(folder: Path) -> list[Path]:
    """Files at any depth, links to folders not followed, without hidden ones and those of folders called `__…`."""
    found = []
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__")))
        found += [Path(place, name) for name in sorted(names) if not name.startswith(".")]
    return found


def is_image(path: Path) -> bool:
    """Whether the name ends like an image's."""
    return path.suffix.lower() in IMAGE_SUFFIXES


# ---- images in folders of classes ----------------------------------------------------------------------------------


def read_image_folder(folder: Path, cache_dir: str | None = None) -> DatasetDict:
    """A folder of images: class folders, in folders of splits or not, or `metadata.csv` beside the images.

    Folders `train`, `validation` (`val`, `valid`, `dev`), `test` are splits where they hold class folders (or metadata)
    and nothing lies beside them; else what they are called says nothing, nor does what files are called. The class of
    an image is the folder it lies in.

    Raises:
        ValueError: images that belong to no split or class, or that nothing is known of; names how many, and the fix.
    """
    files = files_below(folder)
    images, metadata = list(filter(is_image, files)), [path for path in files if path.name in METADATA]
    others = [path for path in files if path not in set(metadata) and not is_image(path)]
    if others:
        told = ", ".join(str(path.relative_to(folder)) for path in others[:NAMED])
        logger.warning(f"{str(folder)!r}: {len(others)} files that are no images are ignored ({told} …).")
    splits = _split_folders(folder, images, metadata)
    if not metadata:
        _check_class_folders(folder, images, splits)
    for path in metadata:
        _check_metadata(path)
    # Patterns, and not the files: there may be a million. What is called like a split is no pattern here.
    shared = [glob.escape(str(path)) for path in metadata if path.parent == folder]
    patterns = {
        split: [f"{glob.escape(str(part))}/**", *(shared if part != folder else [])] for split, part in splits.items()
    }
    more = {} if metadata else {"drop_labels": False}
    try:
        found = load_dataset("imagefolder", data_files=patterns, cache_dir=cache_dir, **more)
    except DatasetGenerationError as error:
        raise ValueError(f"{str(folder)!r} cannot be read: {error.__cause__ or error}") from error
    count = 0
    for split in found.values():
        pictures = [name for name, feature in split.features.items() if isinstance(feature, ImageFeature)]
        count += sum(len(split) - split.data.column(name).null_count for name in pictures)
    if count != len(images):
        raise ValueError(
            f"{str(folder)!r} holds {len(images)} images, and {count} of them were read"
            + (", those that its metadata name: name all, or move the others elsewhere." if metadata else ".")
        )
    return found


def _check_metadata(path: Path) -> None:
    read = {".csv": partial(pd.read_csv, nrows=1), ".jsonl": partial(pd.read_json, lines=True, nrows=1)}
    columns = list(read.get(path.suffix, pd.read_parquet)(path).columns)
    if not any(str(name) == "file_name" or str(name).endswith("_file_name") for name in columns):
        raise ValueError(
            f"{str(path)!r} has the columns {columns}, and none says which image a row is about: call that column "
            "file_name, with the path of the image from this file's folder."
        )


def _split_folders(folder: Path, images: list[Path], metadata: list[Path]) -> dict[str, Path]:
    """Split -> its folder; everything is the training split where there are none."""
    parts = [path.relative_to(folder).parts for path in images]
    tops = {part[0] for part in parts if len(part) > 1}
    described = {path.relative_to(folder).parts[0] for path in metadata}
    deep = {part[0] for part in parts if len(part) > 2} | (tops if described & set(METADATA) else described & tops)
    words = {top: _split_of(top) for top in deep}
    if not any(words.values()):
        flat = [top for top in tops - deep if top.lower() in SPLIT_WORDS]
        if len(flat) == len(tops) > 0:
            raise ValueError(
                f"{str(folder)!r}: the folders {', '.join(sorted(flat))} hold images without class folders. If they "
                "are splits, put the images of every split into a folder for each class; if they are classes, put "
                "these folders into one called train."
            )
        return {"train": folder}
    beside = [part for part in parts if not words.get(part[0])]
    if beside:
        names = ", ".join(sorted({part[0] for part in beside})[:NAMED])
        raise ValueError(
            f"{str(folder)!r} has folders of splits ({', '.join(sorted(filter(words.get, words)))}), and "
            f"{len(beside)} images beside them, of no split: {names}. Move these into a split, or elsewhere; if the "
            "folders are classes and not splits, put them all into one folder called train."
        )
    if twice := [word for word, count in Counter(words.values()).items() if count > 1]:
        same = sorted(top for top, word in words.items() if word == twice[0])
        raise ValueError(
            f"{str(folder)!r}: {' and '.join(same)} are both called like the {twice[0]} split. Put them together, or "
            "one of them elsewhere."
        )
    order = ("train", "validation", "test")
    return {word: folder / top for top, word in sorted(words.items(), key=lambda item: order.index(item[1]))}


def _split_of(name: str) -> str | None:
    """The split that a name speaks of, as `datasets` reads it: one of the words, between signs or digits.

    Raises:
        ValueError: it speaks of two.
    """
    found = {SPLIT_WORDS[word] for word in re.split(r"[-._ 0-9]+", name.lower()) if word in SPLIT_WORDS}
    if len(found) > 1:
        raise ValueError(f"{name!r} is called like two splits, {' and '.join(sorted(found))}: rename it.")
    return next(iter(found), None)


def _check_class_folders(folder: Path, images: list[Path], splits: dict[str, Path]) -> None:
    for part in splits.values():
        own = [path.relative_to(part).parts for path in images if path.is_relative_to(part)]
        loose = [parts[0] for parts in own if len(parts) == 1]
        depths = {len(parts): parts for parts in own}
        if len(loose) == len(own):
            raise ValueError(
                f"{str(part)!r} holds {len(own)} images and no folders, so nothing says their classes. Put the images "
                "of every class into a folder of its own, or write metadata.csv beside them, with the columns "
                "file_name and label."
            )
        if len(depths) > 1:
            outside = f"; {len(loose)} images lie in none" if loose else ""
            shown = " and ".join(repr(os.path.join(*parts)) for parts in list(depths.values())[:2])
            raise ValueError(
                f"{str(part)!r}: images lie at different depths, such as {shown}. The class of an image is the folder "
                f"it lies in, so all class folders have to lie side by side{outside}."
            )
        _tell_outer_folders(part, {parts[:-1] for parts in own})


def _tell_outer_folders(part: Path, folders: set[tuple[str, ...]]) -> None:
    """Say which folders are the classes where others lie around them; refuse it where that makes one class of all."""
    classes = sorted({parts[-1] for parts in folders})
    outer = sorted({os.path.join(*parts[:-1]) for parts in folders if len(parts) > 1})
    if len(outer) < 2:
        return
    shown = ", ".join(outer[:NAMED]) + (" …" if outer[NAMED:] else "")
    if len(classes) == 1:
        raise ValueError(
            f"{str(part)!r}: every image lies in a folder called {classes[0]!r}, and the class of an image is the "
            f"folder it lies in. If {shown} are the classes, put their images directly into these."
        )
    logger.warning(
        f"{str(part)!r}: the class of an image is the folder it lies in, one of {len(classes)} ({classes[0]}, "
        f"{classes[1]} …); the folders around these, {shown}, say nothing. If they are the classes, put their images "
        "directly into them."
    )


# ---- Waterbirds as it is distributed -------------------------------------------------------------------------------


def has_waterbirds_layout(folder: Path) -> bool:
    """Whether the folder has the metadata.csv of Waterbirds and of what is made in its image."""
    path = folder / "metadata.csv"
    return path.is_file() and set(pd.read_csv(path, nrows=0).columns) >= WATERBIRDS


def read_waterbirds(folder: Path) -> DatasetDict:
    """Waterbirds' own folder (Sagawa et al. 2020): metadata.csv with `img_filename`, `y`, `split` 0 … 2 and `place`.

    Raises:
        ValueError: files that are missing or not named in it, or a value that is not 0, 1 (or of `split` 2).
    """
    table = pd.read_csv(folder / "metadata.csv")
    for column, most in (("y", 1), ("place", 1), ("split", 2)):
        if wrong := sorted(set(table[column].tolist()) - set(range(most + 1)), key=str):
            raise ValueError(
                f"{str(folder / 'metadata.csv')!r}: the column {column} holds {wrong[:10]}, expected 0 … {most}."
            )
    named = [folder / name for name in table["img_filename"]]
    present = set(filter(is_image, files_below(folder)))
    if missing := [str(path.relative_to(folder)) for path in named if not path.is_file()]:
        raise ValueError(f"{str(folder)!r}: {len(missing)} images of metadata.csv are not there, such as {missing[0]}.")
    if left := present - set(named):
        raise ValueError(
            f"{str(folder)!r}: metadata.csv does not name {len(left)} of the {len(present)} images, such as "
            f"{min(left).relative_to(folder)}. Add them to it, or move them elsewhere."
        )
    features = Features(
        image=ImageFeature(),
        label=ClassLabel(names=list(WATERBIRDS_NAMES["y"])),
        place=ClassLabel(names=list(WATERBIRDS_NAMES["place"])),
    )
    splits = {}
    for number, name in enumerate(WATERBIRDS_SPLITS):
        rows = table[table["split"] == number]
        if len(rows):
            columns = {
                "image": [str(folder / path) for path in rows["img_filename"]],
                "label": rows["y"].tolist(),
                "place": rows["place"].tolist(),
            }
            splits[name] = Dataset.from_dict(columns, features=features)
    return DatasetDict(splits)


# ---- parquet files -------------------------------------------------------------------------------------------------


def split_parquet_files(folder: Path, files: Iterable[Path]) -> dict[str, list[str]]:
    """Split -> its files, by their names as `datasets` reads them; all are the training split where none has one.

    Raises:
        ValueError: some files have a split in their name and others none, which would be left out.
    """
    files = list(files)
    shards = {path: SHARD.fullmatch(path.stem) for path in files}
    if all(path.parent == folder / "data" and shards[path] for path in files):
        splits = {path: shards[path][1] for path in files}
    else:
        splits = {path: _split_of_file(path.relative_to(folder)) for path in files}
    if not any(splits.values()):
        splits = dict.fromkeys(files, "train")
    if without := [str(path.relative_to(folder)) for path, split in splits.items() if split is None]:
        known = sorted(set(filter(None, splits.values())))
        raise ValueError(
            f"{str(folder)!r}: {len(without)} of its {len(files)} parquet files are of no split, such as {without[0]}, "
            f"while others are of {', '.join(known)}. Rename them after their split, or move them elsewhere."
        )
    found: dict[str, list[str]] = {}
    order = [*dict.fromkeys(SPLIT_WORDS.values())]
    for split in sorted(set(splits.values()), key=lambda name: (order.index(name) if name in order else 9, name)):
        found[split] = [str(path) for path in files if splits[path] == split]
    return found


def _split_of_file(path: Path) -> str | None:
    return next(filter(None, map(_split_of, (path.stem, *reversed(path.parts[:-1])))), None)


def read_parquet(files: dict[str, list[str]], cache_dir: str | None = None) -> DatasetDict:
    """Parquet files, each with the columns and class names that it says itself.

    `datasets` takes those of the first file for all: labels of files written apart would be joined by number.
    """
    return DatasetDict({split: _read_split(split, paths, cache_dir) for split, paths in files.items()})


def _read_split(split: str, paths: list[str], cache_dir: str | None) -> Dataset:
    alike: list[tuple[Features, list[str]]] = []
    for path in paths:
        features = _features(path)
        if not alike or alike[-1][0] != features:
            alike.append((features, []))
        alike[-1][1].append(path)
    parts = [
        load_dataset(
            "parquet", data_files={split: [glob.escape(path) for path in same]}, features=features,
            cache_dir=cache_dir, split=split,
        )
        for features, same in alike
    ]  # fmt: skip
    if len(parts) == 1:
        return parts[0]
    parts = [_spelt_out(part) for part in parts]
    try:
        return concatenate_datasets(parts)
    except ValueError as error:
        raise ValueError(f"The parquet files of the split {split!r} have different columns: {error}") from error


def _features(path: str) -> Features:
    """The features that a parquet file says it has; categories (of pandas, of polars) are strings."""
    try:
        schema = pq.read_schema(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{path!r} is no readable parquet file: {error}") from error
    fields = [
        field.with_type(field.type.value_type) if pa.types.is_dictionary(field.type) else field for field in schema
    ]
    return Features.from_arrow_schema(pa.schema(fields, metadata=schema.metadata))


def _spelt_out(part: Dataset) -> Dataset:
    for name, feature in part.features.items():
        if isinstance(feature, ClassLabel):
            values = [None if code is None else feature.int2str(code) if code >= 0 else None for code in part[name][:]]
            part = part.remove_columns(name).add_column(name, values)
    return part
