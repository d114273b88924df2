"""Pictures and numbers of what a classifier has learned."""

from typing import TYPE_CHECKING

from ..utils.lazy import lazy_names

if TYPE_CHECKING:
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

# A report draws curves, and need not wait for what Grad-CAM needs.
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Attribution": ".grad_cam",
        "Explainer": ".explanation",
        "Explanation": ".explanation",
        "Picture": ".pictures",
        "accuracies_figure": ".training",
        "attribution_metrics": ".grad_cam",
        "attribution_shares": ".grad_cam",
        "check_has_masks": ".grad_cam",
        "check_same_labels": ".explanation",
        "draw_loss_raised": ".perturbations",
        "grad_cam_figure": ".grad_cam",
        "heat_overlay": ".grad_cam",
        "lines_figure": ".training",
        "logged": ".training",
        "loss_raised_figure": ".perturbations",
        "partial_dependence": ".perturbations",
        "partial_dependence_figure": ".perturbations",
        "run_pictures": ".pictures",
    },
)
