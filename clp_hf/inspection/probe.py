"""How well a cue alone tells the class: cross-validated, class-balanced, with its interval, beside the whole image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

FOLDS = 5
FEWEST = 10  # images of a class that is asked for
MOST_COMPONENTS = 256  # of features
TREES = 50
DRAWS, CLASS_DRAWS = 2000, 500  # of the bootstrap
ONE_CLASS = 0.8  # of the F1 that the whole image has for a class
INTERVAL = (2.5, 97.5)  # percentiles


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float


def predict_by(values: np.ndarray, labels: np.ndarray, clusters: np.ndarray, deep: bool, seed: int = 0) -> np.ndarray:
    """The class that each image has by `values` alone, (n,), told by images of other folds; classes count alike.

    Features of a network are told apart by linear discriminants with equal priors and a shrunk covariance, which
    has nothing to be tuned; a few numbers by a random forest, which needs no line to be straight.

    Args:
        values: (n, d).
        labels: (n,) integers, each at least `FOLDS` times.
        clusters: (n,) images with the same number (duplicates) are in one fold.
        deep: whether values are features of a network.
        seed: of the folds.
    """
    classes = len(np.unique(labels))
    if deep:
        components = min(MOST_COMPONENTS, values.shape[1], len(labels) // 3)
        discriminants = LinearDiscriminantAnalysis(
            solver="lsqr", shrinkage="auto", priors=np.full(classes, 1 / classes)
        )
        probe = make_pipeline(StandardScaler(), PCA(components, random_state=seed), discriminants)
    else:
        probe = RandomForestClassifier(TREES, min_samples_leaf=5, class_weight="balanced", random_state=seed)
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    return cross_val_predict(probe, values, labels, groups=clusters, cv=folds)


@dataclass(frozen=True)
class Comparison:
    """What a cue tells, beside what the whole image does.

    Attributes:
        accuracy: class-balanced, of the cue alone.
        share: (accuracy − chance) of the cue by that of the whole image; by 1 − chance where the whole image tells
            nothing, as it may with features that do not suit it.
    """

    accuracy: Estimate
    share: Estimate


def compare(cue: np.ndarray, image: np.ndarray, labels: np.ndarray, seed: int = 0) -> Comparison:
    """Balanced accuracies with intervals, by a bootstrap over the images of every class, the same for both.

    Args:
        cue, image: (n,) predictions.
        labels: (n,).
        seed: of the bootstrap.
    """
    rng, chance = np.random.default_rng(seed), 1 / len(np.unique(labels))
    drawn, exact = np.zeros((2, DRAWS)), np.zeros(2)
    for label in np.unique(labels):
        own = labels == label
        right, whole = cue[own] == label, image[own] == label
        # how many are told by: both, the cue, the image, none
        cells = np.array(
            [(right & whole).sum(), (right & ~whole).sum(), (~right & whole).sum(), (~right & ~whole).sum()]
        )
        counts = rng.multinomial(own.sum(), cells / own.sum(), DRAWS)
        drawn += np.stack([counts[:, 0] + counts[:, 1], counts[:, 0] + counts[:, 2]]) / own.sum() * chance
        exact += np.array([cells[0] + cells[1], cells[0] + cells[2]]) / own.sum() * chance
    tells = np.percentile(drawn[1], INTERVAL[0]) > chance
    whole = np.maximum(drawn[1], chance + 1e-9) if tells else np.ones(DRAWS)
    share = (drawn[0] - chance) / (whole - chance)
    return Comparison(
        Estimate(float(exact[0]), *np.percentile(drawn[0], INTERVAL).tolist()),
        Estimate(
            float((exact[0] - chance) / ((exact[1] if tells else 1) - chance)), *np.percentile(share, INTERVAL).tolist()
        ),
    )


def compare_classes(cue: np.ndarray, image: np.ndarray, labels: np.ndarray, seed: int = 0) -> dict[int, Estimate]:
    """Classes that a cue alone tells from all others, nearly as well as the whole image does, and their F1.

    That is: the low end of the interval of the F1, of classes that count alike, is at least `ONE_CLASS` of that of the
    whole image, and half at least. One class of many may have a shortcut that the mean over all classes hides.

    Args:
        cue, image: (n,) predictions.
        labels: (n,).
        seed: of the bootstrap.
    """
    rng, classes = np.random.default_rng(seed), np.unique(labels)
    shares = np.stack([[(cue[labels == own] == other).mean() for other in classes] for own in classes])
    whole = np.stack([[(image[labels == own] == other).mean() for other in classes] for own in classes])
    counts = [(labels == own).sum() for own in classes]
    drawn = np.stack(
        [
            rng.multinomial(count, row / row.sum(), CLASS_DRAWS) / count
            for count, row in zip(counts, shares, strict=True)
        ],
        axis=1,
    )
    low, high = np.percentile(_f1(drawn), INTERVAL, axis=0)
    enough = np.maximum(ONE_CLASS * _f1(whole), 0.5)
    return {
        int(classes[index]): Estimate(float(_f1(shares)[index]), float(low[index]), float(high[index]))
        for index in np.flatnonzero(low >= enough)
    }


def _f1(shares: np.ndarray) -> np.ndarray:
    """Of every class, (…, C), by the shares of each class's images that are given to each class, (…, C, C)."""
    return 2 * np.diagonal(shares, axis1=-2, axis2=-1) / (1 + shares.sum(-2))
