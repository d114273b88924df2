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
        group = np.asarray(split["label"][:]) * len(attributes) + np.asarray(split[attribute_column][:])
        return split.add_column("group", group, feature=ClassLabel(names=names))

    return DatasetDict({name: with_group(split) for name, split in splits.items()})


def in_order_of_pairs(splits: DatasetDict, attribute_column: str) -> DatasetDict:
    """Number given groups as group = class * number of attributes + attribute, where each is one such pair.

    They keep their names. Others are left as they are: `check_groups` refuses what is no group.
    """
    features = next(iter(splits.values())).features
    attributes, classes = features[attribute_column].names, features["label"].names
    pairs = {
        role: np.asarray(split["label"][:]) * len(attributes) + split[attribute_column][:]
        for role, split in splits.items()
    }
    given = {role: np.asarray(split["group"][:]) for role, split in splits.items()}
    found = np.unique(np.stack([np.concatenate([*given.values()]), np.concatenate([*pairs.values()])], 1), axis=0)
    one_each = len(set(found[:, 0])) == len(found) == len(set(found[:, 1])) == len(features["group"].names)
    if not one_each or len(found) != len(classes) * len(attributes):
        return splits
    names = [features["group"].names[group] for group in found[found[:, 1].argsort(), 0]]
    return DatasetDict(
        {
            role: split.remove_columns("group").add_column("group", pairs[role], feature=ClassLabel(names=names))
            for role, split in splits.items()
        }
    )


def check_groups(splits: DatasetDict) -> None:
    """Groups are (class, attribute) pairs, and those that are evaluated occur in training.

    Raises:
        ValueError: a group of several classes, in one split or between two, or one that training does not have.
    """
    names, classes = splits["train"].features["group"].names, splits["train"].features["label"].names
    groups = {role: np.asarray(split["group"][:]) for role, split in splits.items()}
    known = set(groups["train"].tolist())
    owner: dict[int, tuple[int, str]] = {}
    for role, split in splits.items():
        if unseen := sorted(set(groups[role].tolist()) - known):
            raise ValueError(
                f"Split {role!r} has groups {[names[group] for group in unseen]} that do not occur in the training "
                f"split ({[names[group] for group in sorted(known)]}). Remove them, or choose another "
                "`attribute_column`."
            )
        pairs = np.unique(np.stack([groups[role], split["label"][:]], 1), axis=0)
        held, number = np.unique(pairs[:, 0], return_counts=True)
        if (number > 1).any():
            mixed = [names[group] for group in held[number > 1]]
            raise ValueError(
                f"Split {role!r}: groups {mixed} hold images of several classes, but a group is a (class, attribute) "
                "pair. Give the column as `attribute_column` with `group_column='none'`."
            )
        for group, label in pairs.tolist():
            first, where = owner.setdefault(group, (label, role))
            if first != label:
                raise ValueError(
                    f"Group {names[group]!r} holds images of class {classes[first]!r} in split {where!r} and of "
                    f"{classes[label]!r} in {role!r}, but a group is a (class, attribute) pair."
                )


def counts(dataset: Dataset, column: str = "group") -> dict[str, int]:
    """Number of images per name of a `ClassLabel` column (`label`, `group`, ...), zeros included."""
    names = dataset.features[column].names
    return dict(zip(names, np.bincount(dataset[column][:], minlength=len(names)).tolist(), strict=True))


def group_proportions(dataset: Dataset, column: str = "group") -> dict[str, float]:
    """Share of each group in `dataset`, summing to 1: on the training split, the weights of `adjusted_accuracy`."""
    return {name: count / len(dataset) for name, count in counts(dataset, column).items()}
