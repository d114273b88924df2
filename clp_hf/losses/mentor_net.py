"""MentorNet: sample weights by a curriculum, which forgets samples whose loss stays large."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..bilevel.distributed import all_gather_rows
from ..utils.options import require
from .base import TrainingLoss


class MentorNet(TrainingLoss):
    """MentorNet with a predefined curriculum, PD (Jiang et al. 2018, "MentorNet: learning data-driven curriculum for
    very deep neural networks on corrupted labels", Eq. 4 and 5).

    A sample of loss ℓ has the weight v = min(max(1 − (ℓ − λ₁) / λ₂, 0), 1), or with λ₂ = 0 that of self-paced learning,
    1 where ℓ ≤ λ₁. λ₁ is the moving average of a percentile of the losses of a batch. Published: the 75th percentile,
    with decay 0.9, and λ₂ = 1.

    There a small network, the mentor, is first trained to give these weights; this is what it is trained towards, in
    closed form. Their other curriculum, data-driven, needs training images of which both a wrong and a clean label are
    known; and their random dropping of samples is left out.

    With several processes λ₁ is that of their joint batch.

    Args:
        percentile: p, in (0, 1]: the larger, the more samples count.
        softness: λ₂, 0 or more.
        decay: of the moving average, in [0, 1).

    Attributes:
        threshold: λ₁, saved and resumed; 0 before the first batch, whose percentile it becomes.
    """

    def __init__(self, percentile: float = 0.75, softness: float = 1.0, decay: float = 0.9):
        super().__init__()
        require(0 < percentile <= 1, "percentile", percentile, "a share of the images, more than 0, up to 1")
        require(softness >= 0, "softness", softness, "0 or more")
        require(0 <= decay < 1, "decay", decay, "0 or more, less than 1")
        self.percentile, self.softness, self.decay = percentile, softness, decay
        self.register_buffer("threshold", torch.zeros(()))
        self.register_buffer("batches", torch.zeros((), dtype=torch.long))

    def forward(self, logits: Tensor, labels: Tensor, groups: Tensor | None = None) -> Tensor:
        """As of `TrainingLoss`; in training mode it first moves `threshold`."""
        losses = F.cross_entropy(logits, labels, reduction="none")
        if self.training:
            self._move(losses.detach())
        return (self.weights(losses.detach()) * losses).mean()

    def weights(self, losses: Tensor) -> Tensor:
        """v of every sample, (n,) in [0, 1], from losses (n,)."""
        above = losses - self.threshold.to(losses.dtype)
        return (1 - above / self.softness).clamp(0, 1) if self.softness else (above <= 0).to(losses.dtype)

    def _move(self, losses: Tensor) -> None:
        (joint,) = all_gather_rows([losses])
        found = joint.quantile(self.percentile).to(self.threshold.dtype)
        self.threshold.copy_(torch.where(self.batches > 0, torch.lerp(found, self.threshold, self.decay), found))
        self.batches += 1
