"""A data set as recipes would read it, with all that its source says beside that, and no image decoded."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from datasets import ClassLabel, Dataset, DatasetDict, Value
from datasets import Image as ImageFeature

from ..data.columns import Columns
from ..data.loading import LABEL_COLUMNS, columns_of, load_classification_dataset, select_splits
from ..data.sources import read_splits

IN_MEMORY = "DATA"
NO_LABELS = "no column of labels was found: name it with --label_column"


@dataclass
class Source:
    """Splits in their roles, and what is known of their images.

    Attributes:
        name: as the user gave it; `DATA` for splits that were loaded already.
        splits: `train` and maybe `validation` and `test`, with the columns of the source; images are not decoded.
        names: role -> what the source calls the split.
        unused: splits of the source that recipes do not read, with their sizes.
        roles: role (`image`, `label`, `group`, `mask`, `box`, `attribute`) -> column; what is not there is not in it.
        class_names, group_names: None where labels, groups are not known.
        labels, groups: role of a split -> (n,) integers.
        problem: why recipes would refuse the data set, None where they would not.
    """

    name: str
    splits: DatasetDict
    names: dict[str, str]
    unused: dict[str, int]
    roles: dict[str, str]
    class_names: list[str] | None = None
    group_names: list[str] | None = None
    labels: dict[str, np.ndarray] = field(default_factory=dict)
    groups: dict[str, np.ndarray] = field(default_factory=dict)
    problem: str | None = None

    def encoded(self, split: str, column: str) -> Dataset:
        """A column of images, as bytes or paths and not decoded, alone in its data set."""
        images = self.splits[split].select_columns(column)
        return images.cast_column(column, ImageFeature(decode=False)).with_format(None)

    def other_columns(self) -> list[str]:
        """Those of one value an image that play no role, and the attribute."""
        taken = set(self.roles.values()) - {self.roles.get("attribute")}
        features = self.splits["train"].features
        return [name for name, kind in features.items() if name not in taken and isinstance(kind, (ClassLabel, Value))]


def read_source(
    name: str | DatasetDict,
    columns: Columns | None = None,
    *,
    config_name: str | None = None,
    train_split: str = "train",
    validation_split: str | None = None,
    test_split: str | None = None,
    cache_dir: str | None = None,
    revision: str | None = None,
    token: str | None = None,
) -> Source:
    """Read a data set as `load_classification_dataset` does, but refuse nothing that images can be looked at without.

    Args:
        name: as for `load_classification_dataset`, and so are all others.

    Raises:
        ConnectionError: the Hub cannot be reached. ValueError: no data set, or a column or split that was asked for is
            not there.
    """
    columns = columns or Columns()
    found = read_splits(name, config_name, cache_dir, token=token, revision=revision)
    splits = select_splits(found, train_split, validation_split, test_split)
    names = {role: next(key for key, split in found.items() if split is part) for role, part in splits.items()}
    unused = {key: len(split) for key, split in found.items() if key not in names.values()}
    present = splits["train"].column_names
    has_labels = columns.label_column is not None or any(label in present for label in LABEL_COLUMNS)
    roles, attribute = columns_of(present, columns if has_labels else replace(columns, label_column="none"))
    roles = {role: column for role, column in {**roles, "attribute": attribute}.items() if column}
    source = Source(name if isinstance(name, str) else IN_MEMORY, splits, names, unused, roles)
    if not has_labels:
        source.problem = NO_LABELS
        return source
    try:
        # Masks and boxes are read with the images they belong to: an image that is corrupt must not stop the rest.
        labelled = load_classification_dataset(
            splits,
            replace(columns, mask_column="none", box_column=None),
            validation_fraction=None,
        )
    except ValueError as error:
        source.problem = str(error)
        return source
    features = labelled["train"].features
    source.class_names = features["label"].names
    source.labels = {role: np.asarray(split["label"][:]) for role, split in labelled.items()}
    if "group" in features:
        source.group_names = features["group"].names
        source.groups = {role: np.asarray(split["group"][:]) for role, split in labelled.items()}
    return source
