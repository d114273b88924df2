"""Group DRO: the groups with the highest loss get the highest weight, by an online game."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..bilevel.distributed import all_reduce_mean
from ..utils.options import require
from .base import TrainingLoss


class GroupDRO(TrainingLoss):
    """Group distributionally robust optimisation (Sagawa et al. 2020, "Distributionally robust neural networks for
    group shifts", Algorithm 1).

    Minimises Σ_g q_g L_g, L_g the mean loss of the group's samples in the batch, after q_g ← q_g exp(η (L_g + C/√n_g)),
    normalised (the group adjustment C is their Eq. 5). Groups that are absent from a batch have L_g = 0 there.
    Published: η = 0.01, C between 0 and 5, batches with all groups equally often (`train_sampling="group"`), strong
    weight decay (1e-4 … 1) or early stopping.

    With several processes L_g is that of their joint batch. Under gradient accumulation q moves with every micro-batch.

    Args:
        group_counts: (G,); a group without training images gets no weight.
        step_size: η, 0 or more.
        adjustment: C, 0 or more.

    Attributes:
        weights: q, (G,), saved and resumed.
    """

    def __init__(self, group_counts: Tensor, step_size: float = 0.01, adjustment: float = 0.0):
        super().__init__()
        require(step_size >= 0, "step_size", step_size, "0 or more")
        require(adjustment >= 0, "adjustment", adjustment, "0 or more")
        self.step_size = step_size
        counts = torch.as_tensor(group_counts).float()
        self.register_buffer("weights", (counts > 0) / (counts > 0).sum())
        self.register_buffer("adjustments", adjustment / counts.clamp(min=1).sqrt())

    def forward(self, logits: Tensor, labels: Tensor, groups: Tensor | None = None) -> Tensor:
        """As of `TrainingLoss`; in training mode it first moves `weights`."""
        losses = F.cross_entropy(logits, labels, reduction="none")
        members = F.one_hot(groups, len(self.weights)).to(losses.dtype)
        sums = (losses[:, None] * members).sum(0)
        # Means over processes: both numerator and denominator of L_g lack the same factor.
        joint_sums, counts = all_reduce_mean([sums.detach(), members.sum(0)])
        counts = torch.where(counts > 0, counts, 1)
        if self.training:
            grown = self.weights * (self.step_size * (joint_sums / counts + self.adjustments)).exp()
            self.weights.copy_(grown / grown.sum())
        # Its mean over processes, which DDP takes of the gradient, is Σ q_g L_g of the joint batch.
        return (self.weights * sums / counts).sum()
