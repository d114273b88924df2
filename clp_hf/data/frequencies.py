"""How often classes and groups occur in a training set, and sampling that evens it out."""

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, WeightedRandomSampler

from .checks import column


def class_proportions(dataset: Dataset, num_labels: int) -> Tensor:
    """The share of every class, (C,); equal ones for a stream, whose labels are known only as they come."""
    if isinstance(dataset, IterableDataset):
        return torch.full((num_labels,), 1 / num_labels)
    labels = torch.as_tensor(column(dataset, "labels"))
    return torch.bincount(labels, minlength=num_labels) / len(labels)


def needed_column(dataset: Dataset, name: str) -> np.ndarray:
    """The values (N,) of a column that images are drawn by.

    Raises:
        ValueError: there is none.
    """
    values = column(dataset, name)
    if values is None:
        raise ValueError(
            f"This train_sampling needs the {name} of every training image, and the training set does not have "
            "it. Give the data set that column, or set train_sampling='random'."
        )
    return values


COLUMNS = {"class": "labels", "group": "group", "group_subset": "group", "weight": "weight"}


def train_sampler(dataset: Dataset, sampling: str, seed: int = 0) -> WeightedRandomSampler:
    """Draw as many images as there are, with replacement.

    Args:
        dataset: map-style.
        sampling: `class` or `group`, every value of that column equally often; `group_subset`, the images of
            `group_subset_weights`; `weight`, in proportion to that column, 0 or more.
        seed: of the subset.

    Raises:
        ValueError: the training set lacks the column.
    """
    values = needed_column(dataset, COLUMNS[sampling])
    if sampling == "weight":
        weights = values
    elif sampling == "group_subset":
        weights = group_subset_weights(values, seed)
    else:
        _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
        weights = (1 / counts)[inverse]
    return WeightedRandomSampler(weights, len(values))


def group_subset_weights(groups: np.ndarray, seed: int) -> np.ndarray:
    """1 for as many images of every group as the smallest has, drawn once; 0 for the others, which are never seen.

    SUBG (Idrissi et al. 2022, "Simple data balancing achieves competitive worst-group-accuracy", section 2): a subset
    with min_g n_g images of every group g. An epoch stays as long as it is for the other methods: it draws n images
    out of the subset, so that no method has more steps.

    Args:
        groups: (n,).
        seed: of the draw.

    Returns:
        (n,) float64, with sum G · min_g n_g.
    """
    rng = np.random.default_rng(seed)
    members = [rng.permutation(np.flatnonzero(groups == group)) for group in np.unique(groups)]
    smallest = min(map(len, members))
    weights = np.zeros(len(groups))
    weights[np.concatenate([one[:smallest] for one in members])] = 1
    return weights
