"""Logit Correction: what a biased network takes an image for is its attribute."""

from __future__ import annotations

from .base import Learned, Reference
from .predicted import predicted_groups


def logit_correction(reference: Reference) -> Learned:
    """Groups (class, class predicted by a biased network), for the loss `logit_correction` (Liu et al. 2023, "Avoiding
    spurious correlations via logit correction", Algorithm 1).

    The biased network is trained with generalised cross-entropy, which learns most from what is easy. Published: both
    are trained at once, and the frequencies of the groups are running means of its probabilities; here it is trained
    before, and is stopped early, as it would learn the rare groups too in the end.

    Args:
        reference: of the biased network.

    Raises:
        ValueError: it was wrong nowhere.
    """
    groups, told = predicted_groups(reference, "Logit correction")
    return Learned(f"The biased network was wrong about {told}.", group=groups)
