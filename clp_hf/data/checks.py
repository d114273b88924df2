"""What training asks of a data set, checked before training: columns, labels, masks, and the meta set.

A data set is map-style, the training set may be a stream; its items hold `pixel_values` (3, H, W) normalised for the
model, `labels`, and where there are any `mask` (1, H, W) in [0, 1], `group`, and `noisy`: whether the label is known to
be wrong."""

from collections.abc import Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, Subset

EXTRA_COLUMNS = ("mask", "group", "noisy", "swapped")  # the last is made in training (`clp_hf.causal.TrainingImages`)


def column(dataset: Dataset, name: str) -> np.ndarray | None:
    """The values of a column for all items, without decoding images where the data set allows it; None without it."""
    if isinstance(dataset, Subset):
        values = column(dataset.dataset, name)
        return None if values is None else values[np.asarray(dataset.indices, dtype=int)]
    if hasattr(dataset, "column_names"):
        return np.asarray(dataset.with_format(None)[name][:]) if name in dataset.column_names else None
    if hasattr(dataset, name):
        values = getattr(dataset, name)
        return None if values is None else np.asarray(values)
    values = [item.get(name) for item in (dataset[index] for index in range(len(dataset)))]
    return None if any(value is None for value in values) else np.asarray(values)


def stored_column(dataset: Dataset, name: str) -> np.ndarray | None:
    """`column`, where no image has to be decoded for it; None elsewhere."""
    source = dataset
    while isinstance(source, Subset):
        source = source.dataset
    stored = getattr(source, "column_names", None) is not None or hasattr(source, name)  # of a stream None
    return column(dataset, name) if stored and hasattr(source, "__len__") else None


def check_labels(labels: np.ndarray | None, num_labels: int, what: str, whole: bool = True) -> np.ndarray:
    """Integer labels in 0 … num_labels − 1, or an error that says what `what` has instead.

    If they are the `whole` of it, they are of two classes or more.
    """
    if labels is None:
        raise ValueError(f"The {what} has no `labels` column.")
    if not len(labels):
        raise ValueError(f"The {what} is empty.")
    if labels.dtype.kind not in "iu":
        raise ValueError(f"The labels of the {what} are {labels.dtype}; expected integers 0 … {num_labels - 1}.")
    outside = np.flatnonzero((labels < 0) | (labels >= num_labels))
    if len(outside):
        raise ValueError(
            f"The {what} has labels outside 0 … {num_labels - 1}, the classes of the model: item {outside[0]} has "
            f"{labels[outside[0]]}, and {len(outside) - 1} more. Map them, or load the model with more num_labels."
        )
    if whole and len(np.unique(labels)) < 2:
        raise ValueError(f"The {what} has one class only (label {labels[0]}): there is nothing to tell apart.")
    return labels


def check_every_class(labels: np.ndarray, names: Sequence[str], what: str) -> None:
    """Refuse classes without an image: they would be learned never, and by some methods be made likelier for it."""
    counts = np.bincount(labels, minlength=len(names))
    if empty := [f"{label} ({name})" for label, name in enumerate(names) if not counts[label]]:
        shown = ", ".join(empty[:10]) + (f" … and {len(empty) - 10} more" if len(empty) > 10 else "")
        raise ValueError(
            f"The {what} has no image of class {shown}. Add images of it, or load the model with the classes alone "
            "that there are images of."
        )


def shared_images(first: Dataset, second: Dataset) -> np.ndarray:
    """Which images of `first` are in `second` too, by index; what is known of subsets of one and the same data set."""
    (source, rows), (other, others) = _source(first), _source(second)
    same = source is other or (
        len(source) == len(other) and getattr(source, "fingerprint", source) == getattr(other, "fingerprint", other)
    )
    return np.flatnonzero(np.isin(rows, others)) if same else np.zeros(0, dtype=int)


def _source(dataset: Dataset) -> tuple[Dataset, np.ndarray]:
    """What a data set is a subset of, and which of its rows are in it, in their order."""
    rows = np.arange(len(dataset))
    while isinstance(dataset, Subset):
        dataset, rows = dataset.dataset, np.asarray(dataset.indices, dtype=int)[rows]
    return dataset, rows


def check_item(item: dict[str, Any], index: int, what: str) -> dict[str, Any]:
    """One item's images: shape, finite values, and a mask of the same size where there is one."""
    pixel_values = item.get("pixel_values")
    if pixel_values is None:
        raise ValueError(f"Item {index} of the {what} has no `pixel_values`; it has {', '.join(item)}.")
    if pixel_values.ndim != 3:
        raise ValueError(
            f"Item {index} of the {what}: pixel_values is {tuple(pixel_values.shape)}; expected (3, H, W)."
        )
    if not torch.isfinite(pixel_values).all():
        raise ValueError(f"Item {index} of the {what} has non-finite pixels; repair or remove that image.")
    mask = item.get("mask")
    if mask is not None and tuple(mask.shape) != (1, *pixel_values.shape[1:]):
        raise ValueError(
            f"Item {index} of the {what}: its mask is {tuple(mask.shape)}, its image {tuple(pixel_values.shape)}; "
            f"expected a mask of (1, {pixel_values.shape[1]}, {pixel_values.shape[2]}). Transform both together."
        )
    if mask is not None and not (0 <= mask.min() <= mask.max() <= 1):  # false for NaN too
        raise ValueError(
            f"Item {index} of the {what}: its mask has values from {mask.min():g} to {mask.max():g}; expected [0, 1], "
            "1 on the object."
        )
    return item


def check_training_data(dataset: Dataset | None, num_labels: int, sample: int = 32) -> dict[str, Any]:
    """Check all labels, of a stream the first, and the first `sample` images; return the first item.

    The labels of a stream are checked batch by batch, by `check_batch_labels`, and the other images as they train.
    """
    if dataset is None:
        raise ValueError("CLP needs a train_dataset when it is built, for the class proportions.")
    if isinstance(dataset, IterableDataset):
        items = list(islice(dataset, sample))
        labels = None if any("labels" not in item for item in items) else np.asarray([item["labels"] for item in items])
        check_labels(labels, num_labels, "training set", whole=False)
    else:
        check_labels(column(dataset, "labels"), num_labels, "training set")
        items = [dataset[index] for index in range(min(sample, len(dataset)))]
    for index, item in enumerate(items):
        check_item(item, index, "training set")
    return items[0]


def check_batch_labels(labels: Tensor, num_labels: int, step: int) -> None:
    """Refuse a training batch of a stream with labels that are no class of the model."""
    smallest, largest = labels.aminmax()
    if smallest < 0 or largest >= num_labels:
        raise ValueError(
            f"A training batch of step {step} has labels {smallest} … {largest}; the classes of the model are "
            f"0 … {num_labels - 1}. Map them, or load the model with more num_labels."
        )
