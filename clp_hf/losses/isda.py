"""ISDA: infinitely many augmented features, in closed form."""

import torch.nn.functional as F
from torch import Tensor

from ..utils.options import require
from .base import TrainingLoss
from .class_moments import ClassMoments


class ISDA(TrainingLoss):
    """Implicit semantic data augmentation (Wang et al. 2019, "Implicit semantic data augmentation for deep networks").

    The cross-entropy of features that are moved by N(0, λ Σ_y), Σ_y the covariance of the class's features, is at most
    that of the logits u_j + λ/2 (w_j − w_y)ᵀ Σ_y (w_j − w_y), w the rows of the head, which is what is minimised.
    Σ is estimated while training (`ClassMoments`), and λ grows with it, λ = λ₀ t / T. Published: λ₀ = 0.5 on CIFAR, 7.5
    on ImageNet.

    With several processes Σ is that of their joint batches.

    Args:
        class_counts: (C,).
        num_features: d.
        strength: λ₀, 0 or more; 0 is cross-entropy.

    Attributes:
        moments: Σ, saved and resumed.
    """

    takes_features = True

    def __init__(self, class_counts: Tensor, num_features: int, strength: float = 0.5):
        super().__init__()
        require(strength >= 0, "strength", strength, "0 or more")
        self.strength = strength
        self.moments = ClassMoments(len(class_counts), num_features)

    def forward(
        self, logits: Tensor, labels: Tensor, groups: Tensor | None, features: Tensor, weight: Tensor
    ) -> Tensor:
        """As of `TrainingLoss`; in training mode it first moves `moments`."""
        if self.training:
            self.moments.update(features, labels)
        classes, place = labels.unique(return_inverse=True)
        spreads = self.moments.spreads(weight, classes, self.moments.covariances[classes])
        return F.cross_entropy(logits + self.strength * self.progress / 2 * spreads[place], labels)
