"""The cross-entropy of cosines: how long a feature is, and a row of the head, tells nothing."""

import torch.nn.functional as F
from torch import Tensor

from .base import TrainingLoss, require


class Cosine(TrainingLoss):
    """−log softmax_y(τ cos(w_c, x)): the normalised classifier that De-confound-TDE trains (Tang et al. 2020,
    "Long-tailed classification by keeping the good and removing the bad momentum causal effect", Eq. 4), with one head
    (K = 1) and γ = 0, their norm of a row being what the row is brought to here. Published: τ = 16.

    Args:
        scale: τ, more than 0.
    """

    takes_cosines = True

    def __init__(self, scale: float = 16.0):
        super().__init__()
        require(scale > 0, "scale", scale, "more than 0")
        self.scale = scale

    def forward(self, logits: Tensor, labels: Tensor, groups: Tensor | None = None) -> Tensor:
        """As of `TrainingLoss`; `logits` are cosines, in [−1, 1]."""
        return F.cross_entropy(self.scale * logits, labels)
