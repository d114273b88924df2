"""Groups = (class, attribute): group = class * number of attributes + attribute."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from datasets import ClassLabel, Dataset, DatasetDict


def group_names(label_names: Sequence[str], attribute_names: Sequence[str], separator: str = "_on_") -> list[str]:
    """Names in the order of the group index, such as `landbird_on_water`."""
    return [f"{label}{separator}{attribute}" for label in label_names for attribute in attribute_names]


def add_groups(splits: DatasetDict, attribute_column: str, separator: str = "_on_") -> DatasetDict:
    """Add the `group` column made of `label` and `attribute_column` (both `ClassLabel`s) to every split."""
    features = next(iter(splits.values())).features
    attributes = features[attribute_column].names
    names = group_names(features["label"].names, attributes, separator)

    def with_group(split: Dataset) -> Dataset:
        group = np.asarray(split["label"]) * len(attributes) + np.asarray(split[attribute_column])
        return split.add_column("group", group, feature=ClassLabel(names=names))

    return DatasetDict({name: with_group(split) for name, split in splits.items()})


def counts(dataset: Dataset, column: str = "group") -> dict[str, int]:
    """Number of images per name of a `ClassLabel` column (`label`, `group`, ...), zeros included."""
    names = dataset.features[column].names
    return dict(zip(names, np.bincount(dataset[column], minlength=len(names)).tolist(), strict=True))


def group_proportions(dataset: Dataset, column: str = "group") -> dict[str, float]:
    """Share of each group in `dataset`, summing to 1: on the training split, the weights of `adjusted_accuracy`."""
    return {name: count / len(dataset) for name, count in counts(dataset, column).items()}
