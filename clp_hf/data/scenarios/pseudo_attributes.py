"""Pseudo-attributes: clusters within every class that stand in for attributes nobody has annotated."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from datasets import ClassLabel, Dataset
from torch import Tensor

from .long_tail import integer_labels


def add_pseudo_attributes(
    dataset: Dataset,
    features: Sequence[Sequence[float]] | np.ndarray | Tensor,
    clusters: int = 6,
    *,
    column: str = "attribute",
    label_column: str = "label",
    seed: int = 0,
) -> Dataset:
    """Cluster the images of every class by k-means on their features (CLP paper, section 4.4: six clusters a class).

    With `groups.add_groups` the clusters become groups, of which `select_meta_indices` takes ten images each.

    Args:
        dataset: n images with integer labels.
        features: (n, d), finite, in the order of the data set; for example penultimate features of a classifier.
        clusters: per class.
        column: to add, a `ClassLabel` with the names `cluster_0` …; within a class the first is the largest.
        label_column: of the labels.
        seed: of k-means, as scikit-learn has it.

    Raises:
        ValueError: a class has fewer images than clusters (all such classes are named), features of another length or
            not finite, or a column of that name already there.
    """
    from sklearn.cluster import KMeans  # a second to import, needed here only

    labels, names = integer_labels(dataset, label_column)
    features = np.asarray(features, dtype=np.float64)
    if features.ndim != 2 or len(features) != len(labels) or not np.isfinite(features).all():
        raise ValueError(
            f"Expected finite features ({len(labels)}, d), one row an image, got shape {features.shape}"
            f"{'' if np.isfinite(features).all() else ' with NaN or infinity'}."
        )
    if column in dataset.column_names:
        raise ValueError(f"The data set has a column {column!r} already; give another name.")
    sizes = np.bincount(labels, minlength=len(names))
    if clusters < 1 or ((sizes > 0) & (sizes < clusters)).any():
        short = {name: size for name, size in zip(names, sizes.tolist(), strict=True) if 0 < size < clusters}
        raise ValueError(
            f"k-means of {clusters} clusters needs at least 1 cluster, and as many images of each class as clusters; "
            f"too few have {short}. Ask for fewer clusters, or leave these classes out."
        )
    attributes = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        found = KMeans(clusters, n_init=10, random_state=seed).fit_predict(features[members])
        rank = np.argsort(np.argsort(-np.bincount(found, minlength=clusters), kind="stable"))
        attributes[members] = rank[found]
    cluster_names = [f"cluster_{number}" for number in range(clusters)]
    return dataset.add_column(column, attributes, feature=ClassLabel(names=cluster_names))
