"""How many masks of a split are of no use, counted and said before training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, Subset
from transformers.utils import logging

from ..causal.mask_report import MaskReport, check_masks
from .checks import check_item
from .dataset import ImageClassificationDataset

logger = logging.get_logger(__name__)

NAMED = 50  # of the images without a usable mask
LOOKED_AT = 32  # training images, evenly spaced, where not all masks are in memory


def split_masks(dataset: ImageClassificationDataset, shape: str = "box") -> MaskReport:
    """The masks of a split as they are kept, before any crop.

    Args:
        dataset: with masks or boxes.
        shape: in which they will be used, `"box"` or `"exact"`.

    Raises:
        ValueError: a mask cannot be decoded or read.
    """
    return check_masks(dataset.masks(), shape)


def mask_sentence(name: str, report: MaskReport) -> str | None:
    """What is to be said of a split's masks; None where all are of use."""
    if report.maskable.all():
        return None
    share = 100 * (1 - report.maskable.float().mean().item())
    return f"Masks, {name}: {report} These are {share:.1f} %."


def counted_masks(report: MaskReport) -> dict[str, Any]:
    """Numbers for the run's record: `images`, `empty`, `full`, and the `indices` of the first of these."""
    unusable = (~report.maskable).nonzero().flatten().tolist()
    return {
        "images": len(report.maskable), "empty": report.num_empty, "full": report.num_full, "indices": unusable[:NAMED]
    }  # fmt: skip


def check_usable(reports: Mapping[str, MaskReport]) -> None:
    """Refuse a split all of whose masks are empty or full: they were read wrongly, or are no masks.

    Raises:
        ValueError: names the split and the counts.
    """
    for name, report in reports.items():
        if not report.maskable.any():
            raise ValueError(
                f"Masks, {name}: {report} Not one shows an object before a background: they hold something else, or "
                "are read wrongly. Say which of their values are foreground (--mask_value), or leave them out "
                "(--mask_column none)."
            )


def every_mask(dataset: Dataset, what: str) -> Iterator[Tensor]:
    """The masks of all images of a map-style data set, one after another, decoded for it only where they have to be.

    Args:
        dataset: the first image has a mask.
        what: it is called in the message.

    Raises:
        ValueError: an image has none.
    """
    masks = _stored_masks(dataset)
    for index in range(len(dataset)):
        mask = dataset[index].get("mask") if masks is None else masks[index]
        if mask is None:
            raise ValueError(
                f"Image {index} of the {what} set has no `mask`, and others have: give it an empty one, (1, H, W) of "
                "zeros, and it stays as it is."
            )
        yield mask


def check_training_masks(dataset: Dataset, shape: str = "box") -> None:
    """Refuse a training set without masks for `train_infills`, and say how many images it leaves as they are.

    All masks are counted where they are in memory, else those of some images, of a stream the first.

    Args:
        dataset: map-style, or a stream.
        shape: in which the masks will be used.

    Raises:
        ValueError: there are no masks, or none for some images, or none of all is of use; or an image is not as
            `check_item` says.
    """
    masks, told = _stored_masks(dataset), ""
    if masks is None:
        items = _some_items(dataset)
        masks = [item.get("mask") for item in items]
        told = f" (of {len(masks)} images looked at)"
        if all(mask is None for mask in masks):
            raise ValueError(
                "train_infills puts training images before another background, and they have no `mask`. Make masks "
                "(clp-hf masks), give the data set a mask or box column (--mask_column, --box_column), or leave "
                "train_infills empty."
            )
        if any(mask is None for mask in masks):
            raise ValueError(
                "train_infills needs a `mask` beside every training image, and some have none: give these an empty "
                "one, (1, H, W) of zeros, and they stay as they are."
            )
    report = check_masks(masks, shape)
    counted = len(report.maskable) == len(dataset) if hasattr(dataset, "__len__") else False
    if counted and not report.maskable.any():
        raise ValueError(f"Training set: {report} train_infills needs masks with foreground and background.")
    if not report.maskable.all():
        logger.warning(f"Training set{told}: {report} train_infills leaves these images as they are.")


def _stored_masks(dataset: Dataset) -> list | None:
    """The masks of all images, where none has to be decoded for it; None elsewhere."""
    if isinstance(dataset, Subset):
        masks = _stored_masks(dataset.dataset)
        return None if masks is None else [masks[index] for index in dataset.indices]
    stored = isinstance(dataset, ImageClassificationDataset) and dataset.has_mask and dataset.stored is not None
    return list(dataset.masks()) if stored else None


def _some_items(dataset: Dataset) -> list[dict[str, Any]]:
    if isinstance(dataset, IterableDataset):
        numbered = enumerate(islice(dataset, LOOKED_AT))
    else:
        spaced = np.linspace(0, len(dataset) - 1, min(len(dataset), LOOKED_AT)).astype(int).tolist()
        numbered = ((index, dataset[index]) for index in spaced)
    return [check_item(item, index, "training set") for index, item in numbered]
