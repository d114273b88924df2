"""One loader for the Hub, folders, parquet files and the embedded set, with one set of column names and checks."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict
from datasets import Image as ImageFeature
from transformers.utils import logging

from .boxes import corner_boxes
from .columns import Columns
from .groups import add_groups, check_groups, in_order_of_pairs
from .holdout import split_validation
from .labels import encode, labels_are_hidden
from .mask_values import to_grey
from .own_files import check_own_files
from .sources import read_splits

logger = logging.get_logger(__name__)

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
    known_classes: Sequence[str] | None = None,
    train_split: str = "train",
    validation_split: str | None = None,
    test_split: str | None = None,
    validation_fraction: float | None = 0.2,
    validation_images: int = 0,
    seed: int = 0,
    cache_dir: str | None = None,
    token: str | None = None,
    revision: str | None = None,
    **fields: Any,
) -> DatasetDict:
    """Load an image classification data set under canonical column names, checked.

    Labels are joined by name, wherever they come from (`clp_hf.data.labels` has the rules), and the classes of the
    result are called as the data calls them.

    Args:
        name_or_path: `"embedded"`, a Hub name, a folder (an image folder, with metadata or not, parquet files, what
            `save_to_disk` wrote, Waterbirds' own), one parquet file, or a `DatasetDict` already loaded.
        columns: their names in the source.
        config_name: configuration of a Hub data set.
        label_names: `class_names` of the columns.
        known_classes: the classes of a model, in its order: those of the result.
        train_split, validation_split, test_split: names in the source; by default `train` (or the only split, whatever
            its name), the first of `validation`, `val`, `valid`, `dev` there is, and `test` if there is one and it does
            not hide its labels.
        validation_fraction: share of the training split that becomes the validation split if the source has none
            (stratified by group, else by label, drawn with `seed`); 0 holds nothing out and takes the test split for
            it; None leaves it without one.
        validation_images: images of every group, else of every class, that are held out at least, as far as two fifths
            of it go.
        cache_dir, token, revision: as for `read_splits`.
        **fields: of `Columns`, in place of those of `columns`.

    Returns:
        `DatasetDict` of `train`, `validation` and, where there is one, `test`, with columns `image`, `label`
        (`ClassLabel`) and, where known, the attribute, `group` (`ClassLabel`), and `mask` or `box` (four floats, xyxy).
        Where validation and test are the same split of the source, they are the same object.

    Raises:
        ConnectionError: the Hub cannot be reached. ValueError: a column, split or value is not as expected; the message
            names what was found.
    """
    if label_names is not None:
        fields["class_names"] = label_names
    columns = replace(columns or Columns(), **fields)
    source = read_splits(name_or_path, config_name, cache_dir, token=token, revision=revision)
    splits = select_splits(source, train_split, validation_split, test_split)
    shared = "test" in splits and splits.get("validation") is splits["test"]
    sources, attribute = columns_of(splits["train"].column_names, columns)
    if "test" in splits and labels_are_hidden(splits["test"], sources["label"]):
        logger.warning(
            f"The test split hides its labels ({len(splits['test'])} images, all -1, missing or without the column "
            f"{sources['label']!r}): it is left out."
        )
        del splits["test"]
    splits = with_labels(with_pixels(splits, sources, attribute, columns), sources, attribute, columns, known_classes)
    if known_classes is None and len(set(splits["train"]["label"][:])) < 2:
        raise ValueError(
            f"The training split has images of one class only, of {splits['train'].features['label'].names}: "
            "at least two are needed."
        )
    if "test" in splits and (shared or ("validation" not in splits and validation_fraction == 0)):
        splits["validation"] = splits["test"]
    elif "validation" not in splits and validation_fraction == 0:
        raise ValueError(
            "With validation_fraction 0 the test split is validated on, and there is none: give a test split, or hold "
            "a share of the training split out (--validation_fraction 0.1)."
        )
    elif "validation" not in splits and validation_fraction is not None:
        splits = split_validation(splits, validation_fraction, seed, validation_images)
    if "group" in splits["train"].column_names:
        check_groups(splits)
    return splits


def with_pixels(
    splits: DatasetDict, sources: dict[str, str | None], attribute: str | None, columns: Columns
) -> DatasetDict:
    """The columns in use under their canonical names, images, masks and boxes in their canonical form.

    Args:
        splits: any.
        sources, attribute: of `columns_of`.
        columns: how values are read.

    Raises:
        ValueError: a split lacks a column, or names a file outside its folder; or a mask or box is not as expected.
    """
    splits = _rename(splits, {role: source for role, source in sources.items() if source}, attribute)
    splits = splits.cast_column("image", ImageFeature())
    if sources["mask"]:
        splits = splits.cast_column("mask", ImageFeature())
    for role, split in splits.items():
        check_own_files(split, role)  # again: what was text is a path now
    if sources["mask"] and columns.mask_value is not None:
        splits = DatasetDict({role: _binary_masks(split, role, columns.mask_value) for role, split in splits.items()})
    if sources["box"]:
        splits = corner_boxes(splits, columns.box_format)
    return splits


def with_labels(
    splits: DatasetDict,
    sources: dict[str, str | None],
    attribute: str | None,
    columns: Columns,
    known_classes: Sequence[str] | None = None,
) -> DatasetDict:
    """Labels, attributes and groups in the form that `load_classification_dataset` gives them.

    Args:
        splits: under canonical names; `train` says which classes, attributes and groups there are.
        sources, attribute, columns: as for `with_pixels`.
        known_classes: as for `load_classification_dataset`.

    Raises:
        ValueError: a value is not as expected.
    """
    splits = encode(splits, "label", columns.class_names, known_classes)
    if attribute:
        splits = encode(splits, attribute, columns.attribute_names)
    if sources["group"]:
        splits = encode(splits, "group")
        splits = in_order_of_pairs(splits, attribute) if attribute else splits
    elif attribute:
        splits = add_groups(splits, attribute, separator="_" if attribute == "attribute" else "_on_")
    return splits


def columns_of(found: Sequence[str], columns: Columns) -> tuple[dict[str, str | None], str | None]:
    """What plays which role, of the columns there are, and the attribute.

    Raises:
        ValueError: a column that is asked for, or cannot be done without, is not there.
    """

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

    sources = {
        "image": column(columns.image_column, "image", IMAGE_COLUMNS, required=True),
        "label": column(columns.label_column, "label", LABEL_COLUMNS, required=True),
        "group": column(columns.group_column, "group", ("group",)),
        "mask": column(columns.mask_column, "mask", ("mask",)) if columns.box_column is None else None,
        "box": column(columns.box_column, "box"),
    }
    for source, count in Counter(filter(None, sources.values())).items():
        if count > 1:
            roles = " and ".join(role for role in sources if sources[role] == source)
            raise ValueError(f"The column {source!r} is taken for {roles}: give each a column of its own.")
    return sources, column(columns.attribute_column, "attribute", ATTRIBUTE_COLUMNS)


def select_splits(splits: DatasetDict, train: str, validation: str | None, test: str | None) -> DatasetDict:
    """The splits of a source in their roles, `train`, `validation` and `test`, as far as there are such.

    Raises:
        ValueError: a split that was asked for is not there, or has no images.
    """
    if train not in splits and len(splits) == 1 and not {validation, test} - {None}:
        train = next(iter(splits))  # nothing else can be meant
    wanted = {
        "train": train,
        "validation": validation or next((name for name in VALIDATION_SPLITS if name in splits), None),
        "test": test or ("test" if "test" in splits else None),
    }
    if train in VALIDATION_SPLITS and validation is None:
        wanted["validation"] = None
    if train == "test" and test is None:
        wanted["test"] = None
    for role, name in wanted.items():
        if name is not None and name not in splits:
            raise ValueError(
                f"There is no {role} split {name!r}; the splits are {list(splits)}. Set `{role}_split` to one."
            )
        if name is not None and not len(splits[name]):
            raise ValueError(f"The {role} split {name!r} has no images.")
    return DatasetDict({role: splits[name] for role, name in wanted.items() if name is not None})


def _rename(splits: DatasetDict, sources: dict[str, str], attribute: str | None) -> DatasetDict:
    """Keep the columns in use, under their canonical names."""

    def rename(role: str, split: Dataset) -> Dataset:
        if missing := {*sources.values(), *filter(None, [attribute])} - set(split.column_names):
            raise ValueError(f"Split {role!r} lacks the columns {sorted(missing)}; it has {split.column_names}.")
        keep = [*sources.values(), *([attribute] if attribute and attribute not in sources.values() else [])]
        return split.select_columns(keep).rename_columns({old: new for new, old in sources.items() if old != new})

    return DatasetDict({role: rename(role, split) for role, split in splits.items()})


def _binary_masks(split: Dataset, role: str, foreground: Sequence[int]) -> Dataset:
    """Masks whose foreground, these values, is white."""
    return split.map(partial(_binary_mask, role=role, foreground=list(foreground)), with_indices=True)


def _binary_mask(row: dict, index: int, role: str, foreground: list[int]) -> dict:
    if row["mask"] is None:
        return {"mask": None}
    try:
        mask, buffer = to_grey(row["mask"], foreground), io.BytesIO()
    except ValueError as error:
        raise ValueError(f"{role}, index {index}: the mask cannot be read: {error}") from error
    mask.save(buffer, "PNG")
    return {"mask": {"path": None, "bytes": buffer.getvalue()}}
