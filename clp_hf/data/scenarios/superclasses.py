"""CIFAR-100 as its 20 superclasses: a generalised long tail on real images whose attributes are known.

The label is the superclass, the group the class, of which every superclass has five. What a superclass has in common
must be learned from some of its classes more than from others (attributes, in the words of Tang et al., ECCV 2022).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from datasets import ClassLabel, Dataset, DatasetDict
from transformers.utils import logging

from ..labels import encode
from .long_tail import chosen_rows, index_hash, integer_labels, tail_shares

logger = logging.get_logger(__name__)

FINE_COLUMNS, COARSE_COLUMN = ("fine_label", "label"), "coarse_label"

# Krizhevsky 2009, with the names of the Hub's data set
SUPERCLASSES = {
    "aquatic_mammals": ("beaver", "dolphin", "otter", "seal", "whale"),
    "fish": ("aquarium_fish", "flatfish", "ray", "shark", "trout"),
    "flowers": ("orchid", "poppy", "rose", "sunflower", "tulip"),
    "food_containers": ("bottle", "bowl", "can", "cup", "plate"),
    "fruit_and_vegetables": ("apple", "mushroom", "orange", "pear", "sweet_pepper"),
    "household_electrical_devices": ("clock", "keyboard", "lamp", "telephone", "television"),
    "household_furniture": ("bed", "chair", "couch", "table", "wardrobe"),
    "insects": ("bee", "beetle", "butterfly", "caterpillar", "cockroach"),
    "large_carnivores": ("bear", "leopard", "lion", "tiger", "wolf"),
    "large_man-made_outdoor_things": ("bridge", "castle", "house", "road", "skyscraper"),
    "large_natural_outdoor_scenes": ("cloud", "forest", "mountain", "plain", "sea"),
    "large_omnivores_and_herbivores": ("camel", "cattle", "chimpanzee", "elephant", "kangaroo"),
    "medium_mammals": ("fox", "porcupine", "possum", "raccoon", "skunk"),
    "non-insect_invertebrates": ("crab", "lobster", "snail", "spider", "worm"),
    "people": ("baby", "boy", "girl", "man", "woman"),
    "reptiles": ("crocodile", "dinosaur", "lizard", "snake", "turtle"),
    "small_mammals": ("hamster", "mouse", "rabbit", "shrew", "squirrel"),
    "trees": ("maple_tree", "oak_tree", "palm_tree", "pine_tree", "willow_tree"),
    "vehicles_1": ("bicycle", "bus", "motorcycle", "pickup_truck", "train"),
    "vehicles_2": ("lawn_mower", "rocket", "streetcar", "tank", "tractor"),
}


class Protocol(NamedTuple):
    """What is long-tailed in training: the superclasses, the classes inside each; the test is balanced."""

    superclasses: bool
    classes: bool


PROTOCOLS = {"alt": Protocol(False, True), "clt": Protocol(True, False), "glt": Protocol(True, True)}


def superclass_groups(
    splits: DatasetDict, fine_column: str | None = None, fine_names: Sequence[str] | None = None
) -> DatasetDict:
    """CIFAR-100, or what is like it, with the superclass as `label` and the class as `group`.

    Args:
        splits: images with their classes. The superclasses are in `coarse_label`, or there is no such column and the
            classes are CIFAR-100's, by name.
        fine_column: of the classes; by default `fine_label` or `label`.
        fine_names: of the classes, where the column holds bare integers.

    Returns:
        The other columns, and `label` and `group`, `ClassLabel`s.

    Raises:
        ValueError: there is no such column, a class is none of CIFAR-100's, or has images of several superclasses.
    """
    columns = splits["train"].column_names
    fine = fine_column or next((name for name in FINE_COLUMNS if name in columns), FINE_COLUMNS[0])
    if fine not in columns:
        raise ValueError(f"There is no column {fine!r} of the classes; the columns are {columns}. Set `label_column`.")
    splits = encode(splits, fine, fine_names)
    classes = splits["train"].features[fine].names
    if COARSE_COLUMN in columns:
        splits = encode(splits, COARSE_COLUMN)
        names = splits["train"].features[COARSE_COLUMN].names
        coarse = {role: np.asarray(split[COARSE_COLUMN][:]) for role, split in splits.items()}
    else:
        names = list(SUPERCLASSES)
        owner = {name: number for number, members in enumerate(SUPERCLASSES.values()) for name in members}
        if unknown := [name for name in classes if name not in owner]:
            raise ValueError(
                f"{len(unknown)} of {len(classes)} classes in {fine!r} are none of CIFAR-100's, such as {unknown[:5]}. "
                f"Give the superclasses in a column {COARSE_COLUMN!r}, or the names of bare integers as `class_names`."
            )
        of_class = np.array([owner[name] for name in classes])
        coarse = {role: of_class[split[fine][:]] for role, split in splits.items()}

    def regrouped(role: str, split: Dataset) -> Dataset:
        group = split[fine][:]
        taken = {fine, COARSE_COLUMN, "label", "group"}
        split = split.select_columns([name for name in split.column_names if name not in taken])
        split = split.add_column("label", coarse[role], feature=ClassLabel(names=names))
        return split.add_column("group", group, feature=ClassLabel(names=classes))

    return DatasetDict({role: regrouped(role, split) for role, split in splits.items()})


def nested_long_tail(
    dataset: Dataset,
    protocol: str,
    *,
    class_imbalance: float = 100.0,
    attribute_imbalance: float = 100.0,
    seed: int = 0,
) -> Dataset:
    """Thin out to superclasses (`label`), the groups inside each, or both, of exponentially falling size.

    Group k of the K of superclass c, of C, keeps n R^(−c / (C − 1)) A^(−k / (K − 1)) images, rounded down, but one at
    least; R is `class_imbalance` and A `attribute_imbalance`, 1 where the protocol has none. n is as large as the
    groups allow; c and k are in the order of the labels. The same data, arguments and seed give the same images on
    every machine. On CIFAR-100's 500 training images a class, ALT at 100 leaves 500, 158, 50, 15 and 5 of each
    superclass.

    Args:
        dataset: with `label` and `group`, each group of one label.
        protocol: `"alt"` (labels balanced, groups long-tailed inside each), `"clt"` (labels long-tailed, groups
            balanced inside each) or `"glt"` (both long-tailed).
        class_imbalance, attribute_imbalance: of the largest to the smallest, each at least 1.
        seed: of the images that stay.

    Returns:
        The images that stay, in the order in which they were.

    Raises:
        ValueError: an unknown protocol, a ratio below 1, columns that are not integers, or a group of several labels.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol is {protocol!r}; choose one of {', '.join(PROTOCOLS)}.")
    rule = PROTOCOLS[protocol]
    labels, label_names = integer_labels(dataset, "label")
    groups, names = integer_labels(dataset, "group")
    available = np.bincount(groups, minlength=len(names))
    share = np.ones(len(names))
    outer = tail_shares(len(label_names), class_imbalance)
    for label, of_label in enumerate(outer):
        members = np.unique(groups[labels == label])
        inner = tail_shares(len(members), attribute_imbalance)
        share[members] = (of_label if rule.superclasses else 1.0) * (inner if rule.classes else 1.0)
    if mixed := [names[group] for group in np.flatnonzero(available) if len(np.unique(labels[groups == group])) > 1]:
        raise ValueError(f"Each group should hold images of one label, but {mixed[:5]} hold several.")
    present = available > 0
    largest = np.floor((available / share)[present].min())
    sizes = np.where(present, np.maximum(1, np.floor(largest * share + 1e-9)), 0).astype(int)
    rows = chosen_rows(groups, sizes, seed)
    logger.info(
        f"{protocol.upper()} (classes {class_imbalance:g}:1, attributes {attribute_imbalance:g}:1, as far as they are "
        f"long-tailed; seed {seed}): {len(rows)} images, index hash {index_hash(rows)}."
    )
    return dataset.select(rows)
