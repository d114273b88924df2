"""Focal loss: samples that are already classified well count less."""

import torch.nn.functional as F
from torch import Tensor

from ..utils.options import require
from .base import TrainingLoss


def focal_loss(logits: Tensor, labels: Tensor, gamma: float) -> Tensor:
    """−(1 − p_y)^γ log p_y, with p the softmax, of every sample: (n,)."""
    losses = F.cross_entropy(logits, labels, reduction="none")
    # the clamp: where p_y rounds to 1, the power's derivative is infinite for γ < 1
    return (-losses).expm1().neg().clamp(min=1e-8) ** gamma * losses


class Focal(TrainingLoss):
    """Focal loss, mean of −(1 − p_y)^γ log p_y (Lin et al. 2017, "Focal loss for dense object detection", Eq. 4).

    On the softmax probabilities, as everyone uses it for classification; theirs are sigmoids. Published: γ = 2.

    Args:
        gamma: 0 or more; 0 is cross-entropy.
    """

    def __init__(self, gamma: float = 2.0):
        super().__init__()
        require(gamma >= 0, "gamma", gamma, "0 or more")
        self.gamma = gamma

    def forward(self, logits: Tensor, labels: Tensor, groups: Tensor | None = None) -> Tensor:
        """As of `TrainingLoss`."""
        return focal_loss(logits, labels, self.gamma).mean()
