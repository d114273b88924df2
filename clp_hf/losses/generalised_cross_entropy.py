"""Generalised cross-entropy: between cross-entropy and the mean absolute error, which wrong labels hurt less."""

import torch.nn.functional as F
from torch import Tensor

from ..utils.options import require
from .base import TrainingLoss


class GeneralisedCrossEntropy(TrainingLoss):
    """(1 − p_y^q) / q (Zhang & Sabuncu 2018, "Generalized cross entropy loss for training deep neural networks with
    noisy labels", Eq. 6), without the truncation of their section 3.3. Published: q = 0.7.

    Args:
        q: in (0, 1]; towards 0 it is cross-entropy, 1 is the mean absolute error 1 − p_y.
    """

    def __init__(self, q: float = 0.7):
        super().__init__()
        require(0 < q <= 1, "q", q, "more than 0, up to 1")
        self.q = q

    def forward(self, logits: Tensor, labels: Tensor, groups: Tensor | None = None) -> Tensor:
        """As of `TrainingLoss`."""
        # 1 − p^q as −expm1(q log p): exact also where p is near 1, finite gradients where it underflows
        return (-self.q * F.cross_entropy(logits, labels, reduction="none")).expm1().neg().mean() / self.q
