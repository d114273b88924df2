"""LPL: the logits of rare classes are moved to a higher loss, those of frequent ones to a lower."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..utils.options import require
from .base import TrainingLoss, checked_class_counts, most_frequent


class LogitPerturbation(TrainingLoss):
    """Logit perturbation loss: cross-entropy of u + δ_y, δ_c the same for all images of a class (Li et al. 2023,
    "Class-level logit perturbation", as for long tails).

    δ_c raises the mean loss of the class's images in the batch where it is a tail class (as augmenting them would), and
    lowers it where it is a head class: steps of length `step_size` along its normalised gradient, as many as stay
    within ‖δ_c‖ ≤ ε_c. The most frequent share `head_share` of the classes are head. The bounds are those of the
    published code: ε_c = `bound` · n_min / n_c for the tail, the full bound for the rarest class, and
    `head_bound` · n_c / n_max for the head. δ is a constant to the gradient. Published, on CIFAR-100-LT: steps of 0.01,
    100 at most, a fifth of that for the head, τ = 0.4.

    Args:
        class_counts: (C,).
        step_size: more than 0.
        bound, head_bound: 0 or more; with both 0 it is cross-entropy.
        head_share: τ, in [0, 1].
    """

    of_joint_batch = True

    def __init__(
        self,
        class_counts: Tensor,
        step_size: float = 0.01,
        bound: float = 1.0,
        head_bound: float = 0.2,
        head_share: float = 0.4,
    ):
        super().__init__()
        require(step_size > 0, "step_size", step_size, "more than 0")
        require(bound >= 0, "bound", bound, "0 or more")
        require(head_bound >= 0, "head_bound", head_bound, "0 or more")
        self.step_size = step_size
        counts = checked_class_counts(class_counts)
        is_head = most_frequent(counts, head_share)
        bounds = torch.where(is_head, head_bound * counts / counts.max(), bound * counts.min() / counts)
        self.register_buffer("steps", (bounds / step_size).round())
        self.register_buffer("signs", torch.where(is_head, -1.0, 1.0))
        self.most_steps = int(self.steps.max())

    def forward(self, logits: Tensor, labels: Tensor, groups: Tensor | None = None) -> Tensor:
        """As of `TrainingLoss`."""
        return F.cross_entropy(logits + self.perturbations(logits.detach(), labels), labels)

    def perturbations(self, logits: Tensor, labels: Tensor) -> Tensor:
        """δ of the class of every sample, (n, C)."""
        classes, place, sizes = labels.unique(return_inverse=True, return_counts=True)
        members = F.one_hot(place, len(classes)).T.to(logits.dtype) / sizes[:, None]
        targets = F.one_hot(classes, logits.shape[1])
        lengths = self.step_size * self.signs[classes]
        found = torch.zeros_like(targets, dtype=logits.dtype)
        for step in range(self.most_steps):
            gradients = members @ (logits + found[place]).softmax(-1) - targets
            moves = (step < self.steps[classes]) * lengths
            found = found + moves[:, None] * F.normalize(gradients, dim=-1)
        return found[place]
