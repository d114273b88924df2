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
from .perturbations import draw_loss_raised, loss_raised_figure, partial_dependence, partial_dependence_figure
from .pictures import Picture, run_pictures
from .training import accuracies_figure, lines_figure, logged

__all__ = [
    "Attribution",
    "Explainer",
    "Explanation",
    "Picture",
    "accuracies_figure",
    "attribution_metrics",
    "attribution_shares",
    "check_has_masks",
    "check_same_labels",
    "draw_loss_raised",
    "grad_cam_figure",
    "heat_overlay",
    "lines_figure",
    "logged",
    "loss_raised_figure",
    "partial_dependence",
    "partial_dependence_figure",
    "run_pictures",
]
