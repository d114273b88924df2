"""ALA: the margin of a sample grows with its difficulty and with how rare its class is."""

import torch.nn.functional as F
from torch import Tensor

from ..utils.options import require
from .base import TrainingLoss, checked_class_counts


class AdaptiveLogitAdjustment(TrainingLoss):
    """Cross-entropy of s · cos, with A_y = (1 − cos_y) / 2 · 1 / log(n_y / n_min + 1) taken off the cosine of the own
    class (Zhao et al. 2022, "Adaptive logit adjustment loss for long-tailed visual recognition", section 3).

    The first factor is the difficulty of the sample, in [0, 1], the second the quantity of its class. A is part of the
    gradient. The scale s is LDAM's, 30, whose cosine head theirs is.

    Args:
        class_counts: (C,).
        scale: s, more than 0.
    """

    takes_cosines = True

    def __init__(self, class_counts: Tensor, scale: float = 30.0):
        super().__init__()
        require(scale > 0, "scale", scale, "more than 0")
        self.scale = scale
        counts = checked_class_counts(class_counts)
        self.register_buffer("quantity", (1 / (counts / counts.min() + 1).log()).float())

    def forward(self, logits: Tensor, labels: Tensor, groups: Tensor | None = None) -> Tensor:
        """As of `TrainingLoss`; `logits` are cosines, in [−1, 1]."""
        adjusted = logits - (1 - logits) / 2 * self.quantity * F.one_hot(labels, logits.shape[1])
        return F.cross_entropy(self.scale * adjusted, labels)
