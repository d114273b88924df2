"""Correct-N-Contrast: what a plainly trained network takes an image for stands for its attribute."""

from __future__ import annotations

from .base import Learned, Reference
from .predicted import predicted_groups


def cnc(reference: Reference) -> Learned:
    """Groups (class, predicted class), for the loss `correct_n_contrast` (Zhang et al. 2022, "Correct-N-Contrast: a
    contrastive approach for improving robustness to spurious correlations", section 4).

    Images of a class that the first network takes for several are positives of each other, images of several classes
    that it takes for one are negatives. Published: the first network is held back from learning all by strong weight
    decay, or stopped early; here it is stopped early.

    Args:
        reference: of the network that was stopped early.

    Raises:
        ValueError: it was wrong nowhere.
    """
    groups, told = predicted_groups(reference, "Correct-N-Contrast")
    return Learned(f"The second network contrasts what the first mistook: {told}.", group=groups)
