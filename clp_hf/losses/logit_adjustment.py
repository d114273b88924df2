"""Logit adjustment: the class frequencies are added to the training logits, and so leave the classifier."""

import torch.nn.functional as F
from torch import Tensor

from ..utils.options import require
from .base import TrainingLoss, checked_class_counts


class LogitAdjustment(TrainingLoss):
    """Cross-entropy of logits + τ log π, π the class frequencies (Menon et al. 2021, "Long-tail learning via logit
    adjustment", Eq. 10). Published: τ = 1.

    Args:
        class_counts: (C,).
        tau: 0 or more; 0 is cross-entropy.
    """

    def __init__(self, class_counts: Tensor, tau: float = 1.0):
        super().__init__()
        require(tau >= 0, "tau", tau, "0 or more")
        counts = checked_class_counts(class_counts)
        self.register_buffer("adjustment", (tau * (counts / counts.sum()).log()).float())

    def forward(self, logits: Tensor, labels: Tensor, groups: Tensor | None = None) -> Tensor:
        """As of `TrainingLoss`."""
        return F.cross_entropy(logits + self.adjustment, labels)
