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
        raise ValueError(f"Sampling by {name} needs that column, and the training set does not have it.")
    return values


def balanced_sampler(dataset: Dataset, name: str) -> WeightedRandomSampler:
    """Draw as many images as there are, with replacement, every value of the column `name` equally often."""
    values = needed_column(dataset, name)
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return WeightedRandomSampler((1 / counts)[inverse], len(values))
