"""Label noise: some labels replaced by wrong ones, the right ones kept in the column `clean_label`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from datasets import Dataset
from PIL import Image

from ..dataset import CLEAN_LABEL, to_rgb
from .long_tail import integer_labels

Class = int | str


def uniform_noise(dataset: Dataset, rate: float, *, label_column: str = "label", seed: int = 0) -> Dataset:
    """Replace each label, with probability `rate`, by a class drawn uniformly from all, its own among them.

    So a share `rate` (C − 1) / C of the labels becomes wrong (Zhang et al. 2017; the setting of Shu et al. 2019 that
    the CLP paper follows).

    Args:
        dataset: with integer labels 0 … C − 1.
        rate: in [0, 1].
        label_column: of the labels.
        seed: of the draw; the same arguments give the same labels.

    Returns:
        The data set with noisy labels, and the old ones in the column `clean_label`.

    Raises:
        ValueError: a rate outside [0, 1], labels that are not integers, or a column `clean_label` already there.
    """
    labels, names = integer_labels(dataset, label_column)
    num_classes = len(names)
    return _corrupted(dataset, labels, np.full((num_classes, num_classes), 1 / num_classes), rate, label_column, seed)


def flip_noise(
    dataset: Dataset,
    rate: float,
    targets: Mapping[Class, Sequence[Class] | Class],
    *,
    label_column: str = "label",
    seed: int = 0,
) -> Dataset:
    """Replace each label, with probability `rate`, by one of the classes it is confused with, each equally likely.

    With one target a class this is pair-flip noise; the CLP paper flips to the two most similar classes, which
    `similar_classes` reads off a confusion matrix.

    Args:
        dataset: with integer labels 0 … C − 1.
        rate: in [0, 1]: the share of wrong labels among the images of classes that have targets.
        targets: class -> the class or classes that its images are mistaken for, by name or number. The labels of a
            class that is not in it stay as they are.
        label_column, seed: as `uniform_noise`.

    Returns:
        The data set with noisy labels, and the old ones in the column `clean_label`.

    Raises:
        ValueError: as `uniform_noise`; an unknown class, or one that flips to itself or to nothing.
    """
    labels, names = integer_labels(dataset, label_column)
    flips = {
        _class_index(label, names): [_class_index(target, names) for target in _as_list(found)]
        for label, found in targets.items()
    }
    if wrong := [names[label] for label, found in flips.items() if label in found or not found]:
        raise ValueError(f"The flip map sends {wrong} to themselves or to nothing; give every class other classes.")
    transition = np.eye(len(names))
    for label, found in flips.items():
        transition[label] = np.bincount(found, minlength=len(names)) / len(found)
    return _corrupted(dataset, labels, transition, rate, label_column, seed)


def similar_classes(confusion: Sequence[Sequence[float]] | np.ndarray, count: int = 2) -> dict[int, list[int]]:
    """The classes that each class is mistaken for most often, the targets of `flip_noise`.

    Args:
        confusion: (C, C), not negative; row = true class, column = predicted class. The diagonal is not looked at.
        count: targets a class, in 1 … C − 1. Of equals the class of the smaller number comes first.

    Raises:
        ValueError: the matrix is not square, not finite or negative, or `count` is out of range.
    """
    confusion = np.array(confusion, dtype=float)
    if confusion.ndim != 2 or confusion.shape[0] != confusion.shape[1] or not (confusion >= 0).all():
        raise ValueError(
            f"Expected a confusion matrix (C, C) of numbers >= 0, got shape {confusion.shape}"
            + (f" with values from {confusion.min():g}." if confusion.size else ".")
        )
    if not 1 <= count < len(confusion):
        raise ValueError(f"count must be in 1 … {len(confusion) - 1}, the number of other classes, got {count}.")
    np.fill_diagonal(confusion, -1)
    ranked = np.argsort(-confusion, axis=1, kind="stable")[:, :count]
    return dict(enumerate(ranked.tolist()))


def thumbnail_confusion(dataset: Dataset, side: int = 8, *, label_column: str = "label") -> np.ndarray:
    """What a linear classifier on thumbnails confuses: a confusion matrix where there is no trained network yet.

    Linear discriminant analysis with shrinkage, cross-validated on two halves of the images.

    Args:
        dataset: with a column `image` and integer labels, two images of every class or more.
        side: of the RGB thumbnails, pixels.
        label_column: of the labels.

    Returns:
        Numbers of images (C, C): row = label, column = predicted class.
    """
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.metrics import confusion_matrix
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    labels, names = integer_labels(dataset, label_column)
    images = dataset.with_format(None)["image"]
    pixels = np.stack([np.ravel(to_rgb(image).resize((side, side), Image.Resampling.BOX)) for image in images])
    classifier = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
    predicted = cross_val_predict(classifier, pixels / 255, labels, cv=StratifiedKFold(2))
    return confusion_matrix(labels, predicted, labels=range(len(names)))


def _corrupted(
    dataset: Dataset, labels: np.ndarray, transition: np.ndarray, rate: float, column: str, seed: int
) -> Dataset:
    """Labels replaced with probability `rate` by a draw from their row of `transition` (C, C), rows summing to 1."""
    if not 0 <= rate <= 1:
        raise ValueError(f"The noise rate is the share of labels to replace, in [0, 1], got {rate}.")
    if CLEAN_LABEL in dataset.column_names:
        raise ValueError(
            f"The data set has a column {CLEAN_LABEL!r} already: its labels are noisy. Start from clean ones."
        )
    # Both numbers are drawn for every image: at a higher rate the images replaced at a lower one are among them.
    replaced, position = np.random.default_rng(seed).random((2, len(labels)))
    noisy = labels.copy()
    for label, row in enumerate(transition.cumsum(1)):
        chosen = (labels == label) & (replaced < rate)
        noisy[chosen] = np.searchsorted(row / row[-1], position[chosen], side="right")
    feature = dataset.features[column]
    clean = dataset.rename_column(column, CLEAN_LABEL)
    return clean.add_column(column, noisy, feature=feature)


def _as_list(targets: Sequence[Class] | Class) -> list[Class]:
    return [targets] if isinstance(targets, (int, str, np.integer)) else list(targets)


def _class_index(label: Class, names: Sequence[str]) -> int:
    if isinstance(label, str) and label in names:
        return names.index(label)
    if not isinstance(label, str) and 0 <= label < len(names):
        return int(label)
    raise ValueError(f"The flip map names the class {label!r}, which is not among the {len(names)} classes: {names}.")
