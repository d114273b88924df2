"""How many masks of a split are of no use, counted and said before training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..causal.mask_report import MaskReport, check_masks
from .dataset import ImageClassificationDataset

NAMED = 50  # of the images without a usable mask


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
