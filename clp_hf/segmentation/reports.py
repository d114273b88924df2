"""What was found, split by split: the report of made masks, as JSON and as a table."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data.mask_counts import NAMED

REPORT = "masks.json"


@dataclass
class SplitReport:
    """The masks of a split.

    Attributes:
        images: how many it has.
        empty: indices of those that nothing was found in: their mask is empty, and no causal augmentation uses them.
        full: indices of those whose mask leaves no background, likewise.
        coverage: mean share of the image that is foreground, in [0, 1].
        iou: mean intersection over union with the true masks, or None where there are none.
        box_iou: the same of the enclosing boxes.
        found_iou: `iou` of the images that something was found in; None where there are none.
    """

    images: int
    empty: list[int]
    full: list[int]
    coverage: float
    iou: float | None = None
    box_iou: float | None = None
    found_iou: float | None = None


def made_of(folder: str | os.PathLike) -> str | None:
    """The name of the data set that one made here is of; None for one that was not made here."""
    report = _report(folder)
    return None if report is None else report["settings"]["dataset_name"]


def mask_counts(folder: str | os.PathLike) -> dict[str, dict[str, Any]]:
    """How many images of a data set made here have no usable mask, and the first 50 of these.

    Args:
        folder: of a data set.

    Returns:
        Split -> `images`, `empty`, `full`, numbers, and `indices` of empty and full masks. Nothing for a data set that
        was not made here.
    """
    report = _report(folder)
    if report is None:
        return {}
    return {
        name: {
            "images": split["images"],
            "empty": len(split["empty"]),
            "full": len(split["full"]),
            "indices": sorted(split["empty"] + split["full"])[:NAMED],
        }
        for name, split in report["splits"].items()
    }


def format_mask_report(reports: dict[str, SplitReport]) -> str:
    """A Markdown table, a row for every split, and below it the images without a usable mask."""
    has_truth = any(report.iou is not None for report in reports.values())
    head = ["split", "images", "nothing found", "no background", "mean coverage, %"]
    rows = [head + (["IoU, %", "IoU of boxes, %", "IoU where found, %"] if has_truth else [])]
    for name, report in reports.items():
        row = [name, report.images, len(report.empty), len(report.full), f"{100 * report.coverage:.1f}"]
        quality = (report.iou, report.box_iou, report.found_iou) if has_truth else ()
        rows.append(row + ["–" if value is None else f"{100 * value:.1f}" for value in quality])
    rows.insert(1, ["---", *["---:"] * (len(rows[0]) - 1)])
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    for name, report in reports.items():
        for what, indices in (("nothing found", report.empty), ("no background", report.full)):
            if indices:
                more = f" … and {len(indices) - NAMED} more" if len(indices) > NAMED else ""
                lines.append(f"\n{name}, {what}: {', '.join(map(str, indices[:NAMED]))}{more}")
    if any(report.empty or report.full for report in reports.values()):
        lines.append("\nThese images are left out of causal augmentation; they train as they are.")
    return "\n".join(lines)


def _report(folder: str | os.PathLike) -> dict[str, Any] | None:
    path = Path(folder) / REPORT
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
