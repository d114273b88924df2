"""One loader for the Hub, folders, parquet files and the embedded set, with one set of column names and checks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from datasets import ClassLabel, Dataset, DatasetDict, Value, load_dataset
from datasets import Image as ImageFeature
from datasets import Sequence as SequenceFeature

from ..utils.connection import hub_failure
from .columns import Columns
from .embedded import embedded_birds
from .groups import add_groups

IMAGE_COLUMNS = ("image", "img")
LABEL_COLUMNS = ("label", "fine_label")
ATTRIBUTE_COLUMNS = ("place", "background", "attribute")
VALIDATION_SPLITS = ("validation", "val", "valid", "dev")


def load_classification_dataset(
    name_or_path: str | Path | DatasetDict = "embedded",
    columns: Columns | None = None,
    *,
    config_name: str | None = None,
    label_names: Sequence[str] | None = None,
    train_split: str = "train",
    validation_split: str | None = None,
    test_split: str | None = None,
    validation_fraction: float = 0.2,
    seed: int = 0,
    cache_dir: str | None = None,
    **fields: Any,
) -> DatasetDict:
    """Load an image classification data set under canonical column names, checked.

    Args:
        name_or_path: `"embedded"`, a Hub name, a folder (parquet files or an image folder, splits by name), one parquet
            file, or a `DatasetDict` already loaded.
        columns: their names in the source.
        config_name: configuration of a Hub data set.
        label_names: `class_names` of the columns.
        train_split, validation_split, test_split: names in the source; by default `train`, the first of `validation`,
            `val`, `valid`, `dev` there is, and `test` if there is one.
        validation_fraction: share of the training split that becomes the validation split if the source has none
            (stratified by group, else by label, drawn with `seed`).
        **fields: of `Columns`, in place of those of `columns`.

    Returns:
        `DatasetDict` of `train`, `validation` and, where there is one, `test`, with columns `image`, `label`
        (`ClassLabel`) and, where known, the attribute, `group` (`ClassLabel`), and `mask` or `box` (four floats, xyxy).

    Raises:
        ConnectionError: the Hub cannot be reached. ValueError: a column, split or value is not as expected; the message
            names what was found.
    """
    if label_names is not None:
        fields["class_names"] = label_names
    columns = replace(columns or Columns(), **fields)
    splits = _select_splits(
        read_splits(name_or_path, config_name, cache_dir), train_split, validation_split, test_split
    )
    found = splits["train"].column_names

    def column(requested: str | None, role: str, defaults: Sequence[str] = (), required: bool = False) -> str | None:
        if requested is None:
            requested = next((name for name in defaults if name in found), defaults[0] if required else "none")
        if requested == "none":
            return None
        if requested not in found:
            raise ValueError(
                f"There is no {role} column {requested!r}; the columns are {found}. Set `{role}_column` to one."
            )
        return requested

    attribute = column(columns.attribute_column, "attribute", ATTRIBUTE_COLUMNS)
    sources = {
        "image": column(columns.image_column, "image", IMAGE_COLUMNS, required=True),
        "label": column(columns.label_column, "label", LABEL_COLUMNS, required=True),
        "group": column(columns.group_column, "group", ("group",)),
        "mask": column(columns.mask_column, "mask", ("mask",)) if columns.box_column is None else None,
        "box": column(columns.box_column, "box"),
    }
    used = {role: source for role, source in sources.items() if source}
    for source, count in Counter(used.values()).items():
        if count > 1:
            roles = " and ".join(role for role in used if used[role] == source)
            raise ValueError(f"The column {source!r} is taken for {roles}: give each a column of its own.")
    splits = _rename(splits, used, attribute)
    splits = splits.cast_column("image", ImageFeature())
    if sources["mask"]:
        splits = splits.cast_column("mask", ImageFeature())
    if sources["box"]:
        splits = _corner_boxes(splits, columns.box_format)

    splits = _encode(splits, "label", columns.class_names)
    if len(set(splits["train"]["label"])) < 2:
        raise ValueError(
            f"The training split has images of one class only, of {splits['train'].features['label'].names}: "
            "at least two are needed."
        )
    if attribute:
        splits = _encode(splits, attribute, columns.attribute_names)
    if sources["group"]:
        splits = _encode(splits, "group", None)
    elif attribute:
        splits = add_groups(splits, attribute, separator="_" if attribute == "attribute" else "_on_")

    if "validation" not in splits:
        splits = _split_validation(splits, validation_fraction, seed)
    if "group" in splits["train"].column_names:
        _check_groups(splits)
    return splits


def read_splits(
    name_or_path: str | Path | DatasetDict, config_name: str | None = None, cache_dir: str | None = None
) -> DatasetDict:
    """The splits and columns as they are in the source; arguments and errors as `load_classification_dataset`."""
    if isinstance(name_or_path, DatasetDict):
        return name_or_path
    if name_or_path == "embedded":
        return embedded_birds()
    path = Path(name_or_path)
    if path.is_file():
        return load_dataset("parquet", data_files={"train": str(path)}, cache_dir=cache_dir)
    if path.is_dir():
        return load_dataset(str(path.resolve()), config_name, cache_dir=cache_dir)
    reason = hub_failure()
    offline = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = offline or reason is not None  # then it looks into its cache, and does not retry
    try:
        return load_dataset(str(name_or_path), config_name, cache_dir=cache_dir)
    except OSError as error:
        reason = reason or error
        raise ConnectionError(
            f"{name_or_path!r} is neither a local path nor a data set that could be fetched from the Hub "
            f"({type(reason).__name__}: {reason}). Check the name and the connection, or work offline with a local "
            "folder or parquet file (`--dataset_name path/to/folder`) or the embedded set (`--dataset_name embedded`)."
        ) from error
    finally:
        datasets.config.HF_HUB_OFFLINE = offline


def _select_splits(splits: DatasetDict, train: str, validation: str | None, test: str | None) -> DatasetDict:
    wanted = {
        "train": train,
        "validation": validation or next((name for name in VALIDATION_SPLITS if name in splits), None),
        "test": test or ("test" if "test" in splits else None),
    }
    for role, name in wanted.items():
        if name is not None and name not in splits:
            raise ValueError(
                f"There is no {role} split {name!r}; the splits are {list(splits)}. Set `{role}_split` to one."
            )
    return DatasetDict({role: splits[name] for role, name in wanted.items() if name is not None})


def _rename(splits: DatasetDict, sources: dict[str, str], attribute: str | None) -> DatasetDict:
    """Keep the columns in use, under their canonical names."""

    def rename(role: str, split: Dataset) -> Dataset:
        if missing := {*sources.values(), *filter(None, [attribute])} - set(split.column_names):
            raise ValueError(f"Split {role!r} lacks the columns {sorted(missing)}; it has {split.column_names}.")
        keep = [*sources.values(), *([attribute] if attribute and attribute not in sources.values() else [])]
        return split.select_columns(keep).rename_columns({old: new for new, old in sources.items() if old != new})

    return DatasetDict({role: rename(role, split) for role, split in splits.items()})


def _encode(splits: DatasetDict, column: str, names: Sequence[str] | None) -> DatasetDict:
    """Make `column` a `ClassLabel` with the same names in every split."""
    feature = splits["train"].features[column]
    values = {role: split[column][:] for role, split in splits.items()}
    for role, split_values in values.items():
        if None in split_values:
            raise ValueError(
                f"Column {column!r}, split {role!r}, index {split_values.index(None)}: the value is missing (None)."
            )
    kind = "class" if isinstance(feature, ClassLabel) else getattr(feature, "dtype", type(feature).__name__)
    if kind == "string":
        names = list(names or sorted(set(values["train"])))
        position = {name: index for index, name in enumerate(names)}
        for role, split_values in values.items():
            if unknown := sorted(set(split_values) - set(names)):
                raise ValueError(
                    f"Column {column!r}, split {role!r}: the values {unknown[:10]} are not among the names {names} "
                    "(given, or found in the training split)."
                )
            values[role] = [position[value] for value in split_values]
    elif kind == "class":
        stored = feature.names
        if names is not None and len(names) != len(stored):
            raise ValueError(
                f"Column {column!r} stores {len(stored)} names {stored}, but {len(names)} were given: {list(names)}."
            )
        names = list(names or stored)
    elif kind == "bool" or str(kind).startswith(("int", "uint")):
        names = list(names or map(str, range(max(values["train"]) + 1)))
        if gaps := sorted(set(range(len(names))) - set(values["train"])):
            raise ValueError(
                f"Column {column!r} should hold every integer 0 ... {len(names) - 1} in the training split; "
                f"{gaps[:10]} never occur."
            )
    elif column == "group":
        raise ValueError(
            f"Column {column!r} has type {feature}; expected one integer or string per image. Overlapping groups "
            "(several per image) are not supported: name an `attribute_column` instead, or set `group_column='none'`."
        )
    else:
        raise ValueError(
            f"Column {column!r} has type {feature}; expected integers 0 ... C - 1, strings or a ClassLabel."
        )

    encoded = {}
    for role, split in splits.items():
        codes = np.asarray(values[role], dtype=np.int64)
        if wrong := np.flatnonzero((codes < 0) | (codes >= len(names))).tolist():
            raise ValueError(
                f"Column {column!r}, split {role!r}, index {wrong[0]}: {codes[wrong[0]]} is out of range, "
                f"expected 0 ... {len(names) - 1} ({names}); {len(wrong)} such values."
            )
        split = split.remove_columns(column)
        encoded[role] = split.add_column(column, codes, feature=ClassLabel(names=names))
    return DatasetDict(encoded)


def _corner_boxes(splits: DatasetDict, box_format: str) -> DatasetDict:
    if box_format not in ("xywh", "xyxy"):
        raise ValueError(f"box_format must be 'xywh' or 'xyxy', got {box_format!r}.")

    def convert(role: str, split: Dataset) -> Dataset:
        boxes = split["box"][:]
        if wrong := [index for index, box in enumerate(boxes) if box is None or len(box) != 4]:
            raise ValueError(
                f"Column 'box', split {role!r}, index {wrong[0]}: expected four numbers, got {boxes[wrong[0]]}."
            )
        boxes = np.asarray(boxes, dtype=np.float32)
        if box_format == "xywh":
            boxes[:, 2:] += boxes[:, :2]
        if wrong := np.flatnonzero(~(boxes[:, 2:] > boxes[:, :2]).all(1)).tolist():
            raise ValueError(
                f"Column 'box', split {role!r}, index {wrong[0]}: empty box {boxes[wrong[0]].tolist()} (xyxy) when "
                f"read as {box_format}."
            )
        return split.remove_columns("box").add_column("box", boxes.tolist(), feature=SequenceFeature(Value("float32")))

    return DatasetDict({role: convert(role, split) for role, split in splits.items()})


def _split_validation(splits: DatasetDict, fraction: float, seed: int) -> DatasetDict:
    if not 0 < fraction < 1:
        raise ValueError(f"validation_fraction must be in (0, 1), got {fraction}.")
    train = splits["train"]
    # Every part needs a member of each stratum, so groups are used only where none is a single image.
    by_group = "group" in train.column_names and np.unique(train["group"][:], return_counts=True)[1].min() > 1
    parts = train.train_test_split(fraction, seed=seed, stratify_by_column="group" if by_group else "label")
    return DatasetDict({**splits, "train": parts["train"], "validation": parts["test"]})


def _check_groups(splits: DatasetDict) -> None:
    names = splits["train"].features["group"].names
    known = set(splits["train"]["group"])
    for role, split in splits.items():
        if unseen := sorted(set(split["group"]) - known):
            raise ValueError(
                f"Split {role!r} has groups {[names[group] for group in unseen]} that do not occur in the training "
                f"split ({[names[group] for group in sorted(known)]}). Remove them, or choose another "
                "`attribute_column`."
            )
        pairs = np.unique(np.stack([split["group"][:], split["label"][:]], 1), axis=0)
        owners, classes = np.unique(pairs[:, 0], return_counts=True)
        if (classes > 1).any():
            mixed = [names[group] for group in owners[classes > 1]]
            raise ValueError(
                f"Split {role!r}: groups {mixed} hold images of several classes, but a group is a (class, attribute) "
                "pair. Give the column as `attribute_column` with `group_column='none'`."
            )
