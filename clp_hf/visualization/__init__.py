"""Pictures and numbers of what a classifier has learned."""

from .explanation import Explainer, Explanation, check_same_labels
from .grad_cam import (
    Attribution,
    attribution_metrics,
    attribution_shares,
    check_has_masks,
    grad_cam_figure,
    heat_overlay,
)

__all__ = [
    "Attribution",
    "Explainer",
    "Explanation",
    "attribution_metrics",
    "attribution_shares",
    "check_has_masks",
    "check_same_labels",
    "grad_cam_figure",
    "heat_overlay",
]
