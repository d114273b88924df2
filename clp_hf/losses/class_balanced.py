"""Class-balanced loss: classes weighted by the inverse of their effective number of samples."""

import torch
from torch import Tensor

from ..utils.options import require
from .base import TrainingLoss, checked_class_counts
from .focal import focal_loss


def effective_number_weights(class_counts: Tensor, beta: float) -> Tensor:
    """Weights ∝ (1 − β) / (1 − β^{n_y}) (Cui et al. 2019, Eq. 2 and 12), with mean one over the training images.

    Cui et al. scale them to the sum C, by which a long tail shrinks every step several times. Mean one over the images
    keeps the learning rate's meaning, as the weighted mean over a batch does (PyTorch's, LDAM's code), but is exact
    under gradient accumulation.

    Args:
        class_counts: (C,), all positive.
        beta: in [0, 1); 0 weights all classes alike, towards 1 it becomes the inverse count.

    Returns:
        (C,) float32.
    """
    require(0 <= beta < 1, "beta", beta, "0 or more, and less than 1")
    counts = checked_class_counts(class_counts)
    weights = (1 - beta) / (1 - beta**counts)
    return (weights * counts.sum() / (weights * counts).sum()).float()


class ClassBalanced(TrainingLoss):
    """Class-balanced cross-entropy, or focal loss (Cui et al. 2019, "Class-balanced loss based on effective number").

    Published: β 0.9999 on the CIFAR-10 tails, of 0.9, 0.99, 0.999, 0.9999.

    Args:
        class_counts: (C,).
        beta: in [0, 1), see `effective_number_weights`.
        gamma: of the focal loss, 0 or more; 0 is cross-entropy.
    """

    def __init__(self, class_counts: Tensor, beta: float = 0.9999, gamma: float = 0.0):
        super().__init__()
        require(gamma >= 0, "gamma", gamma, "0 or more")
        self.gamma = gamma
        self.register_buffer("weights", effective_number_weights(class_counts, beta))

    def forward(self, logits: Tensor, labels: Tensor, groups: Tensor | None = None) -> Tensor:
        """As of `TrainingLoss`."""
        return torch.mean(self.weights[labels] * focal_loss(logits, labels, self.gamma))
