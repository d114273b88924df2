"""What the predictions of a run come to: which images are right, AUROC, and F1 of every group."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..hub.predictions import Predictions
from ..utils.extras import needed_by

with needed_by("A report"):
    from torchmetrics.functional.classification import binary_auroc, binary_f1_score


@dataclass(frozen=True)
class Scores:
    """Which images of a split a run gets right, in the order of their identities.

    Attributes:
        images: the same for runs on the same images with the same labels and groups.
        cells: (n,) the group of each, the class without groups.
        correct: (n,) bool.
    """

    images: str
    cells: np.ndarray
    correct: np.ndarray

    @classmethod
    def of(cls, predictions: Predictions) -> Scores:
        """Of the predictions of a run."""
        order = np.argsort(predictions.ids)
        labels = predictions.labels[order]
        cells = labels if predictions.groups is None else predictions.groups[order]
        digest = hashlib.sha256("\n".join(predictions.ids[order]).encode())
        digest.update(np.stack([labels, cells]).astype(np.int64).tobytes())
        return cls(digest.hexdigest(), cells, predictions.correct[order])


def further_metrics(
    predictions: Predictions, label_names: Sequence[str], group_names: Sequence[str] | None
) -> dict[str, float]:
    """AUROC and F1, as `classification_metrics` gives the others; all in [0, 1].

    - `auroc`: of every class against all others, the mean of the classes that have images and are not all images;
    - `f1_<kind>_<name>` of a group (class): its images against those of all other classes, so that what is taken for
      its class counts too, which accuracy in the group does not see; and `worst_<kind>_f1`, the lowest.

    Args:
        predictions: of a run.
        label_names, group_names: of the run.
    """
    labels, predicted = (torch.from_numpy(np.int64(of)) for of in (predictions.labels, predictions.predicted))
    metrics = {}
    present = [int(label) for label in labels.unique()]
    if len(present) > 1:
        scores = torch.from_numpy(predictions.logits.astype(np.float32)).softmax(1)
        areas = [binary_auroc(scores[:, label], (labels == label).int()) for label in present]
        metrics["auroc"] = float(torch.stack(areas).mean())
    kind, names, cells = "class", label_names, labels
    if predictions.groups is not None:
        kind, names, cells = "group", group_names, torch.from_numpy(np.int64(predictions.groups))
    for cell in cells.unique().tolist():
        own = labels[cells == cell]
        if (own == own[0]).all():
            counted = (cells == cell) | (labels != own[0])
            f1 = binary_f1_score((predicted == own[0])[counted].int(), (labels == own[0])[counted].int())
            metrics[f"f1_{kind}_{names[cell]}"] = float(f1)
    if metrics_of_cells := [value for name, value in metrics.items() if name != "auroc"]:
        metrics[f"worst_{kind}_f1"] = min(metrics_of_cells)
    return metrics
