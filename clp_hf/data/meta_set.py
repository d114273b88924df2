"""The meta set: taken out of a training set, checked, and handed out."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset
from transformers.utils import logging

from ..causal.mask_report import check_masks
from ..causal.sampling import select_meta_indices
from .checks import check_item, check_labels, column

logger = logging.get_logger(__name__)

META_SET_FIX = "pass meta_dataset: a few clean images of every class (10 per class or per group do)"


def split_meta_set(dataset: Dataset | None, per_cell: int, seed: int) -> tuple[Dataset, Dataset]:
    """Take a balanced meta set out of the training set: `per_cell` images per group, or per class without groups.

    Returns:
        What is left for training, and the meta set; they share no image.

    Raises:
        ValueError: when there is nothing to take it from.
    """
    if dataset is None or not hasattr(dataset, "__len__"):
        raise ValueError(f"There is no meta set, and none can be taken out of the training data; {META_SET_FIX}.")
    labels = column(dataset, "labels")
    if labels is None or labels.dtype.kind not in "iu":
        raise ValueError(f"There is no meta set, and the training set has no integer `labels`; {META_SET_FIX}.")
    groups = column(dataset, "group")
    chosen = select_meta_indices(labels, per_cell, groups, seed=seed)
    rest = np.setdiff1d(np.arange(len(labels)), chosen)
    emptied = np.setdiff1d(np.unique(labels), np.unique(labels[rest]))
    if len(emptied):
        raise ValueError(
            f"There is no meta set, and {per_cell} images per class taken out of the training set would leave class "
            f"{', '.join(map(str, emptied))} without any; lower meta_samples, or {META_SET_FIX}."
        )
    logger.info(f"The meta set: {len(chosen)} images taken out of the training set, {len(rest)} are left there.")
    return Subset(dataset, rest.tolist()), Subset(dataset, chosen)


class MetaSet:
    """A checked meta set, and batches of it.

    Args:
        dataset: map-style.
        collator: makes a batch of items.
        num_labels: C; every class must be there.
        needs_masks: whether causal augmentation is on.
        mask_shape: how masks are used, `"box"` or `"exact"`.

    Attributes:
        has_masks: whether all items have a mask.
        maskable: bool (n,), which images can be augmented.

    Raises:
        ValueError: empty, a missing class, bad labels, images or masks, or no masks where they are needed.
    """

    def __init__(
        self,
        dataset: Dataset,
        collator: Callable[[Sequence], dict],
        num_labels: int,
        needs_masks: bool,
        mask_shape: str,
    ):
        if not hasattr(dataset, "__len__") or not len(dataset):
            raise ValueError(f"The meta set is empty or has no length; {META_SET_FIX}.")
        self.dataset, self.collator = dataset, collator
        items = [check_item(dataset[index], index, "meta set") for index in range(len(dataset))]
        labels = column(dataset, "labels")
        missing = sorted(set(range(num_labels)) - set(np.unique(check_labels(labels, num_labels, "meta set")).tolist()))
        if missing:
            raise ValueError(f"The meta set has no image of class {', '.join(map(str, missing))}; {META_SET_FIX}.")
        self.has_masks = all(item.get("mask") is not None for item in items)
        if needs_masks and not self.has_masks:
            raise ValueError(
                "Causal augmentation needs a `mask` for every meta image, and they have none. Give the data set a mask "
                "or box column (--mask_column, --box_column), or choose Meta-LP: counterfactual_infills and "
                "factual_infills both empty."
            )
        self.maskable = torch.ones(len(items), dtype=torch.bool)
        if needs_masks:
            report = check_masks((item["mask"] for item in items), mask_shape)
            self.maskable = report.maskable
            if not self.maskable.all():
                logger.warning(f"Meta set: {report}")
            if not self.maskable.any():
                raise ValueError(f"Meta set: {report} Causal augmentation needs masks with foreground and background.")

    def __len__(self) -> int:
        return len(self.dataset)

    def fetch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """The collated items of these indices."""
        if hasattr(self.dataset, "__getitems__"):
            return self.collator(self.dataset.__getitems__(list(indices)))
        return self.collator([self.dataset[index] for index in indices])
