"""RISDA: implicit augmentation of rare classes in the directions of the classes they resemble."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..bilevel.distributed import all_gather_rows
from ..utils.options import require
from .base import TrainingLoss, checked_class_counts, most_frequent
from .class_balanced import effective_number_weights
from .class_moments import ClassMoments

MEMORY = 0.9  # of the relations, a batch


class RISDA(TrainingLoss):
    """Reasoning-based implicit semantic data augmentation (Chen et al. 2022, "Imagine by reasoning").

    Cross-entropy first. Then, weighted by the effective number of the class, that of the logits
    u_j + α t/T (w_j − w_y)ᵀ (μ̃_y − μ_y) + β t/T · ½ (w_j − w_y)ᵀ Σ̃_y (w_j − w_y): what μ̃_y = Σ_k G_yk μ_k and, for
    classes that are not among the most frequent, Σ̃_y = Σ_k G_yk Σ_k borrow from similar classes. Published, on
    CIFAR-100-LT 100:1: α = 0.5, β = 0.75, the most frequent fifth, from epoch 160 of 200 on.

    The relations G are the confusion matrix of the training set there, taken once between two stages, after which the
    backbone is frozen. Here training is one run: G_y is a running mean of the softmax over the images of y, μ and Σ are
    those of `ClassMoments`, and the backbone trains on.

    With several processes μ, Σ and G are those of their joint batches.

    Args:
        class_counts: (C,).
        num_features: d.
        alpha, beta: 0 or more.
        head_share: of the classes, in [0, 1], the most frequent, which keep their own covariance.
        start: the share of the training after which features are augmented, in [0, 1].

    Attributes:
        moments, relations: μ and Σ; G, (C, C). Saved and resumed.
    """

    takes_features = True

    def __init__(
        self,
        class_counts: Tensor,
        num_features: int,
        alpha: float = 0.5,
        beta: float = 0.75,
        head_share: float = 0.2,
        start: float = 0.8,
    ):
        super().__init__()
        require(alpha >= 0, "alpha", alpha, "0 or more")
        require(beta >= 0, "beta", beta, "0 or more")
        require(0 <= start <= 1, "start", start, "a share of the training, in [0, 1]")
        self.alpha, self.beta, self.start = alpha, beta, start
        counts = checked_class_counts(class_counts)
        self.moments = ClassMoments(len(counts), num_features)
        self.register_buffer("relations", torch.eye(len(counts)))
        self.register_buffer("weights", effective_number_weights(counts, 0.9999))
        self.register_buffer("is_head", most_frequent(counts, head_share))

    def forward(
        self, logits: Tensor, labels: Tensor, groups: Tensor | None, features: Tensor, weight: Tensor
    ) -> Tensor:
        """As of `TrainingLoss`; in training mode it first moves `moments` and `relations`."""
        if self.training:
            self.moments.update(features, labels)
            self._relate(logits, labels)
        if self.progress < self.start:
            return F.cross_entropy(logits, labels)
        classes, place = labels.unique(return_inverse=True)
        own, relations = self.moments.covariances[classes], self.relations[classes]
        borrowed = (relations @ self.moments.covariances.flatten(1)).view_as(own)
        keeps = self.is_head[classes].view(-1, *[1] * (own.ndim - 1))
        spreads = self.moments.spreads(weight, classes, torch.where(keeps, own, borrowed))
        moved = (relations @ self.moments.means - self.moments.means[classes]).to(weight.dtype)
        shifts = moved @ weight.T - (moved * weight[classes]).sum(-1, keepdim=True)
        augmented = logits + self.progress * (self.alpha * shifts + self.beta / 2 * spreads)[place]
        return torch.mean(self.weights[labels] * F.cross_entropy(augmented, labels, reduction="none"))

    def _relate(self, logits: Tensor, labels: Tensor) -> None:
        logits, labels = all_gather_rows([logits.detach(), labels])
        classes, place, sizes = labels.unique(return_inverse=True, return_counts=True)
        sums = logits.new_zeros(len(classes), logits.shape[1]).index_add_(0, place, logits.softmax(-1))
        means = (sums / sizes[:, None]).to(self.relations.dtype)
        self.relations[classes] = torch.lerp(means, self.relations[classes], MEMORY)
