"""Balanced softmax: the softmax of a classifier that will be used where all classes are equally frequent."""

import torch.nn.functional as F
from torch import Tensor

from .base import TrainingLoss, checked_class_counts


class BalancedSoftmax(TrainingLoss):
    """−log(n_y e^{u_y} / Σ_j n_j e^{u_j}) (Ren et al. 2020, "Balanced meta-softmax for long-tailed visual recognition",
    Eq. 4), without its meta sampler. The same function as logit adjustment at τ = 1.

    Args:
        class_counts: (C,).
    """

    def __init__(self, class_counts: Tensor):
        super().__init__()
        self.register_buffer("log_counts", checked_class_counts(class_counts).log().float())

    def forward(self, logits: Tensor, labels: Tensor, groups: Tensor | None = None) -> Tensor:
        """As of `TrainingLoss`."""
        return F.cross_entropy(logits + self.log_counts, labels)
