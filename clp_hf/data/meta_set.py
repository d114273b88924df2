"""The meta set: taken out of a training set, checked, and handed out."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset
from transformers.utils import logging

from ..causal.mask_report import check_masks
from ..causal.sampling import select_meta_indices
from .checks import check_item, check_labels, column

logger = logging.get_logger(__name__)

KEPT = 0.2  # of a class, that clusters which would take all of it leave
META_SET_FIX = "pass meta_dataset: a few clean images of every class (10 per class or per group do)"


def meta_indices(
    labels: np.ndarray,
    per_cell: int,
    groups: np.ndarray | None = None,
    *,
    clusters: np.ndarray | None = None,
    label_names: Sequence[str] | None = None,
    group_names: Sequence[str] | None = None,
    num_clusters: int | None = None,
    source: str,
    fix: str,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Which images are taken out for a balanced meta set, and which are left.

    Args:
        labels, groups: (n,) integers of the images it is taken from.
        per_cell: images of every cluster, else of every group, else of every class.
        clusters: (n,) integers in place of the groups, for the balance alone. They do not take all images of a class,
            of which there may be fewer than all its clusters ask for: a fifth is left then.
        label_names, group_names: in the order of their integers; by default those that occur, called by number.
        num_clusters: how many clusters there are.
        source: what it is taken out of, and
        fix: what to do, for the message.
        seed: of the draw.

    Raises:
        ValueError: it would leave none of a class or group that is there: that class or group could be neither trained
            on nor measured.
    """
    cells, count = (groups, group_names and len(group_names)) if clusters is None else (clusters, num_clusters)
    draw = partial(
        select_meta_indices,
        labels,
        per_cell,
        cells,
        num_classes=label_names and len(label_names),
        num_groups=count,
        seed=seed,
    )
    chosen = draw()
    rest = np.setdiff1d(np.arange(len(labels)), chosen)
    if clusters is not None and (kept := _kept(np.asarray(labels), rest, seed)):
        chosen = draw(exclude=kept)
        rest = np.setdiff1d(np.arange(len(labels)), chosen)
    for kind, values, names in (("class", labels, label_names), ("group", groups, group_names)):
        if values is None:
            continue
        values = np.asarray(values)
        if len(emptied := np.setdiff1d(values, values[rest])):
            told = ", ".join(f"{names[value] if names else value} ({(values == value).sum()})" for value in emptied)
            most = int(np.unique(values, return_counts=True)[1].min()) - 1
            fits = "" if clusters is not None or not most else f"; {most} of every {kind} at most leave one of each"
            raise ValueError(
                f"A meta set of {len(chosen)} of the {len(values)} images of the {source} leaves none of {kind} {told} "
                f"there{fits}: {fix}."
            )
    return np.asarray(chosen), rest


def _kept(labels: np.ndarray, rest: np.ndarray, seed: int) -> list[int]:
    """A fifth of the images of every class of which none is in the rest, as far as it has two."""
    rng, kept = np.random.default_rng(seed), []
    for label in np.setdiff1d(labels, labels[rest]):
        members = np.flatnonzero(labels == label)
        if len(members) > 1:
            kept += rng.permutation(members)[: int(np.ceil(KEPT * len(members)))].tolist()
    return kept


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
    fix = f"lower meta_samples, or {META_SET_FIX}"
    chosen, rest = meta_indices(labels, per_cell, column(dataset, "group"), source="training set", fix=fix, seed=seed)
    logger.info(f"The meta set: {len(chosen)} images taken out of the training set, {len(rest)} are left there.")
    return Subset(dataset, rest.tolist()), Subset(dataset, chosen.tolist())


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
                "factual_infills both empty (none on a command line)."
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
