"""Long tails: a data set thinned out so that its classes are of very different sizes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from datasets import ClassLabel, Dataset
from transformers.utils import logging

logger = logging.get_logger(__name__)

PROFILES = ("exponential", "step")


def long_tail(
    dataset: Dataset,
    ratio: float,
    *,
    profile: str = "exponential",
    label_column: str = "label",
    seed: int = 0,
    expected_hash: str | None = None,
) -> Dataset:
    """Thin out a data set to a long tail: class 0 is the largest, the last class `ratio` times smaller.

    The same data set, arguments and seed give the same images on every machine, which `expected_hash` can assert:
    with seed 0 it is the canonical split. On CIFAR-10 in its published size, 5,000 images a class, `ratio=100` leaves
    5000, 2997, 1796, 1077, 645, 387, 232, 139, 83 and 50.

    Args:
        dataset: with integer labels.
        ratio: of the largest to the smallest class, at least 1.
        profile: `"exponential"`: n_c = n_max ratio^(−c / (C − 1)); `"step"`: the second half of the classes, in the
            order of the labels, has n_max / ratio images (Buda et al. 2018; Cao et al. 2019). n_max is as large as
            the classes allow, and numbers are rounded down.
        label_column: of the labels 0 … C − 1.
        seed: of the images that stay.
        expected_hash: `index_hash` of the rows that should stay.

    Returns:
        The images that stay, in the order in which they were.

    Raises:
        ValueError: a ratio below 1, an unknown profile, a class that would be empty, labels that are not integers, or
            another hash than expected.
    """
    labels, names = integer_labels(dataset, label_column)
    indices = chosen_rows(labels, class_sizes(np.bincount(labels, minlength=len(names)), ratio, profile), seed)
    found = index_hash(indices)
    if expected_hash not in (None, found):
        raise ValueError(
            f"The long tail of ratio {ratio:g}, seed {seed}, has the index hash {found}, expected {expected_hash}: the "
            "data set is another one, or its rows are in another order."
        )
    logger.info(f"Long tail ({profile}, {ratio:g}:1, seed {seed}): {len(indices)} images, index hash {found}.")
    return dataset.select(indices)


def class_sizes(available: Sequence[int] | np.ndarray, ratio: float, profile: str = "exponential") -> np.ndarray:
    """Images per class of a long tail, out of `available` ones per class; arguments and errors as `long_tail`."""
    available = np.asarray(available)
    if len(available) < 2:
        raise ValueError(f"A long tail needs two classes or more, found {len(available)}.")
    shares = tail_shares(len(available), ratio, profile)
    largest = np.floor((available / shares).min())
    sizes = np.floor(largest * shares + 1e-9).astype(int)  # 5000 · 100^(-1) must not become 49
    if len(empty := np.flatnonzero(sizes < 1)):
        raise ValueError(
            f"An imbalance ratio of {ratio:g} leaves class {', '.join(map(str, empty))} without images: the largest "
            f"class has {largest:g}. Lower the ratio, or give more images."
        )
    return sizes


def tail_shares(count: int, ratio: float, profile: str = "exponential") -> np.ndarray:
    """Size of each of `count` classes over that of the largest, 1 … 1 / ratio; arguments and errors as `long_tail`."""
    if not ratio >= 1:
        raise ValueError(f"The imbalance ratio is largest : smallest class, so at least 1, got {ratio}.")
    if profile not in PROFILES:
        raise ValueError(f"profile is {profile!r}; choose one of {', '.join(PROFILES)}.")
    classes = np.arange(count)
    steps = classes / max(1, count - 1) if profile == "exponential" else classes >= count // 2
    return float(ratio) ** -steps.astype(float)


def index_hash(indices: Sequence[int] | np.ndarray) -> str:
    """16 hexadecimal digits that tell one choice of rows from another, order included (of SHA-256, int64)."""
    return hashlib.sha256(np.asarray(indices, dtype="<i8").tobytes()).hexdigest()[:16]


def integer_labels(dataset: Dataset, column: str) -> tuple[np.ndarray, list[str]]:
    """The labels of a data set, (n,) in 0 … C − 1, and the C class names.

    Raises:
        ValueError: there is no such column, it does not hold integers, or one is missing or out of range.
    """
    if column not in dataset.column_names:
        raise ValueError(f"There is no column {column!r}; the columns are {dataset.column_names}.")
    feature = dataset.features[column]
    labels = np.asarray(dataset.with_format(None)[column][:])
    if labels.dtype.kind not in "iu" or not len(labels):
        raise ValueError(f"Column {column!r} should hold integers 0 … C − 1, found {len(labels)} of {feature}.")
    names = feature.names if isinstance(feature, ClassLabel) else list(map(str, range(labels.max() + 1)))
    if labels.min() < 0 or labels.max() >= len(names):
        raise ValueError(f"Column {column!r} should be in 0 … {len(names) - 1}, found {labels.min()} … {labels.max()}.")
    return labels, names


def chosen_rows(labels: np.ndarray, sizes: np.ndarray, seed: int) -> np.ndarray:
    """`sizes[c]` rows of every class c, drawn from the seed, in their order."""
    # A stream for every class: how many images one class has does not change which ones another keeps.
    streams = np.random.SeedSequence(seed).spawn(len(sizes))
    rows = [
        np.random.default_rng(stream).permutation(np.flatnonzero(labels == label))[:size]
        for label, (stream, size) in enumerate(zip(streams, sizes, strict=True))
    ]
    return np.sort(np.concatenate(rows))
