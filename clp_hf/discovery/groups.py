"""Groups inside classes, found from features alone: by background, or by what a head takes an image for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Value
from torch import Tensor

from ..data.groups import group_names
from ..features import CausalFeatures
from .probe import CrossValidatedHeads, folds, told_above_chance
from .ways import WAYS

MOST_GROUPS = 6  # of a class, that are tried
SMALLEST = 10  # training images: what is rarer can be neither balanced nor measured
# Of what the image tells of the class, by how much the background has to tell as well to be a shortcut.
SHORTCUT = 0.75


@dataclass(frozen=True)
class DiscoveredGroups:
    """Groups of every split, and how they were found.

    Attributes:
        by: `background` or `errors`.
        names: of the groups; group = class · K + attribute, K groups a class.
        groups: (n,) of every split.
        confidence: (n,) of every split, in [−1, 1]: the silhouette, by distances from the nearest two centres.
        silhouettes: mean on the training images, by number of groups a class that was tried.
        told: how well background and image tell the class, above chance, out of fold.
    """

    by: str
    names: list[str]
    groups: dict[str, Tensor]
    confidence: dict[str, Tensor]
    silhouettes: dict[int, float]
    told: dict[str, float]

    def __str__(self) -> str:
        told = ", ".join(f"{name} {value:.2f}" for name, value in self.told.items())
        count = {str(number): round(value, 2) for number, value in self.silhouettes.items()}
        return (
            f"Groups discovered by {self.by}: {', '.join(self.names)}. What tells the class, from 0 (chance) to 1: "
            f"{told}. Silhouette by number of groups a class: {count}."
        )


def discover_groups(
    splits: Mapping[str, CausalFeatures],
    label_names: Sequence[str],
    by: str = "discover",
    per_class: int | None = None,
    seed: int = 0,
) -> DiscoveredGroups:
    """Find the groups of `train`, and which of them every image of the other splits belongs to.

    `background`: all images together are clustered (k-means) by what cross-validated heads say of their backgrounds
    alone. `errors`: by what such heads say of the whole images. `discover` is `background` where the background tells
    the class nearly as well as the image does, and else `errors`: `benchmarks/group_discovery.py` has what each finds.

    Args:
        splits: `train` and others, with backgrounds.
        label_names: of the classes.
        by: one of `WAYS`.
        per_class: groups of a class; by default the number of the best silhouette, 2 to 6.
        seed: of folds and k-means.

    Raises:
        ValueError: another way, or number of groups.
    """
    if by not in WAYS:
        raise ValueError(f"Groups are found by one of {', '.join(WAYS)}; found {by!r}.")
    train = splits["train"]
    labels, classes = train.labels, len(label_names)
    if per_class is not None and not 2 <= per_class <= len(labels) // 2:
        raise ValueError(
            f"groups_per_class is {per_class}; expected 2 … {len(labels) // 2}, half as many as training images."
        )
    fold = folds(labels, seed)
    heads = {
        "image": CrossValidatedHeads([train.images.features], labels, classes, fold),
        "background": CrossValidatedHeads([train.background], labels, classes, fold),
    }
    told = {name: told_above_chance(of.logits, labels) for name, of in heads.items()}
    if by == "discover":
        by = "background" if is_shortcut(told) else "errors"
    seen = "background" if by == "background" else "image"
    points = {
        name: heads[seen].logits if name == "train" else heads[seen](_features(split, seen))
        for name, split in splits.items()
    }
    numbers = [per_class] if per_class else range(2, min(MOST_GROUPS, max(2, len(labels) // 2)) + 1)
    tried = {number: _Clusters(points["train"].numpy(), number, seed) for number in numbers}
    best = max(tried, key=lambda number: tried[number].silhouette)
    found = {name: tried[best](points[name].numpy()) for name in splits}
    names = _attribute_names(by, tried[best], label_names)
    merged = _merged(labels, found["train"][0], classes, best)
    return DiscoveredGroups(
        by,
        group_names(label_names, names, "_"),
        {name: split.labels * best + merged[split.labels, found[name][0]] for name, split in splits.items()},
        {name: confidence for name, (_, confidence) in found.items()},
        {number: clusters.silhouette for number, clusters in tried.items()},
        told,
    )


def is_shortcut(told: Mapping[str, float]) -> bool:
    """Whether the background tells the class nearly as well as the image does."""
    return told["background"] >= SHORTCUT * told["image"] > 0


def divides_nothing(found: DiscoveredGroups, train: Dataset) -> bool:
    """Whether every class of the training split is one group."""
    return len(found.groups["train"].unique()) == len(set(train["label"][:]))


def with_groups(splits: DatasetDict, found: DiscoveredGroups) -> DatasetDict:
    """The splits with columns `group` and `group_confidence`; a group they have is kept as `true_group`."""

    def with_group(name: str, split: Dataset) -> Dataset:
        if "group" in split.column_names:
            split = split.rename_column("group", "true_group")
        split = split.add_column("group", found.groups[name].numpy(), feature=ClassLabel(names=found.names))
        return split.add_column("group_confidence", found.confidence[name].numpy(), feature=Value("float32"))

    return DatasetDict({name: with_group(name, split) for name, split in splits.items()})


def agreement(groups: Tensor, truth: Tensor, labels: Tensor) -> dict[str, float]:
    """How far groups inside classes are the true ones, each matched with one of its class.

    Args:
        groups, truth, labels: (n,).

    Returns:
        `accuracy`: share of the images in the group that theirs is matched with; `balanced`: the same, every true group
        counting alike; `majority`: the accuracy of one group a class.
    """
    from scipy.optimize import linear_sum_assignment

    right, recalls, largest = 0, [], 0
    for label in labels.unique():
        members = labels == label
        rows, columns = (values[members].unique(return_inverse=True)[1] for values in (groups, truth))
        table = np.zeros((int(rows.max()) + 1, int(columns.max()) + 1))
        np.add.at(table, (rows.numpy(), columns.numpy()), 1)
        shares = table / table.sum(0)
        matched = linear_sum_assignment(-shares)
        right += table[matched].sum()
        recalls += [*shares[matched], *[0.0] * (table.shape[1] - len(matched[1]))]
        largest += table.sum(0).max()
    return {
        "accuracy": float(right / len(labels)),
        "balanced": float(np.mean(recalls)),
        "majority": float(largest / len(labels)),
    }


class _Clusters:
    """k-means of points, (n, C); clusters are in the order of the class that their centre says most, then of size."""

    def __init__(self, points: np.ndarray, number: int, seed: int):
        from sklearn.cluster import KMeans  # half a second to import, needed here only

        fitted = KMeans(number, n_init=10, random_state=seed).fit(points)
        sizes = np.bincount(fitted.labels_, minlength=number)
        order = np.lexsort((-sizes, fitted.cluster_centers_.argmax(1)))
        self.centres = fitted.cluster_centers_[order]
        self.silhouette = float(self(points)[1].mean())

    def __call__(self, points: np.ndarray) -> tuple[Tensor, Tensor]:
        """The cluster of every point, and its silhouette."""
        distances = np.linalg.norm(self.centres - points[:, None], axis=2)
        nearest, second = np.sort(distances, 1)[:, :2].T
        silhouette = (second - nearest) / np.maximum(second, 1e-12)
        return torch.from_numpy(distances.argmin(1)), torch.from_numpy(silhouette).float()


def _features(split: CausalFeatures, seen: str) -> Tensor:
    return split.background if seen == "background" else split.images.features


def _attribute_names(by: str, clusters: _Clusters, label_names: Sequence[str]) -> list[str]:
    """Each is called by the class that its centre says most, where no two say the same; else they are numbered."""
    word = {"background": "on_background", "errors": "taken_for"}[by]
    said = clusters.centres.argmax(1).tolist()
    if len(set(said)) == len(said):
        return [f"{word}_{'of_' if by == 'background' else ''}{label_names[label]}" for label in said]
    return [f"{word}_{number + 1}" for number in range(len(said))]


def _merged(labels: Tensor, attributes: Tensor, classes: int, number: int) -> Tensor:
    """(C, K): the attribute that each stands for in a class: rare ones for the class's most frequent one."""
    table = torch.zeros(classes, number, dtype=torch.long)
    table.index_put_((labels, attributes), torch.ones_like(labels), accumulate=True)
    return torch.where(table >= SMALLEST, torch.arange(number), table.argmax(1, keepdim=True))
