"""LDAM: wider margins for rarer classes, and class weights late in training (DRW)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..utils.options import require
from .base import TrainingLoss, checked_class_counts
from .class_balanced import effective_number_weights


class LDAM(TrainingLoss):
    """Label-distribution-aware margins with deferred re-weighting (Cao et al. 2019, "Learning imbalanced datasets with
    label-distribution-aware margin loss", Eq. 13 and Algorithm 1).

    Cross-entropy of s · cos, with the margin Δ_y ∝ n_y^{−1/4} taken off the cosine of the own class; the largest margin
    is `max_margin`. For the last part of the training samples are weighted by the effective number of their class.
    Published: margin 0.5, s = 30, β 0.9999, re-weighting for the last fifth (from epoch 160 of 200).

    Args:
        class_counts: (C,).
        max_margin: of the rarest class, 0 or more.
        scale: s, more than 0.
        beta: of the deferred weights, see `effective_number_weights`.
        reweight_from: the share of the training after which weights are on, in [0, 1]; 1 never: LDAM without DRW.
    """

    takes_cosines = True

    def __init__(
        self,
        class_counts: Tensor,
        max_margin: float = 0.5,
        scale: float = 30.0,
        beta: float = 0.9999,
        reweight_from: float = 0.8,
    ):
        super().__init__()
        require(max_margin >= 0, "max_margin", max_margin, "0 or more")
        require(scale > 0, "scale", scale, "more than 0")
        require(0 <= reweight_from <= 1, "reweight_from", reweight_from, "a share of the training, in [0, 1]")
        self.scale, self.reweight_from = scale, reweight_from
        counts = checked_class_counts(class_counts)
        self.register_buffer("margins", (max_margin * (counts.min() / counts) ** 0.25).float())
        self.register_buffer("weights", effective_number_weights(class_counts, beta))

    def forward(self, logits: Tensor, labels: Tensor, groups: Tensor | None = None) -> Tensor:
        """As of `TrainingLoss`; `logits` are cosines, in [−1, 1]."""
        margins = F.one_hot(labels, logits.shape[1]) * self.margins
        losses = F.cross_entropy(self.scale * (logits - margins), labels, reduction="none")
        if self.progress >= self.reweight_from:
            losses = self.weights[labels] * losses
        return torch.mean(losses)
