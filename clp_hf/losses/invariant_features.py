"""Invariant feature learning: a class has one centre, whatever its attributes are distributed like."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..bilevel.distributed import all_gather_rows
from ..utils.options import require
from .base import TrainingLoss

RATE = 0.5  # by which a centre follows the mean of a batch
BEFORE = 0.2  # of the weight, until half of what is left after `start` is done


class InvariantFeatures(TrainingLoss):
    """CE + λ ½ ‖f − c_y‖², on images of several environments alike (Tang et al. 2022, "Invariant feature learning for
    generalized long-tailed classification", Eq. 5 and Algorithm 1).

    The centre c_y of a class is that of its features f in all environments, so that a feature which differs between
    them is no use. Environments are drawn by `train_sampling="environments"`, by the weights that a first network has
    given the images (`clp_hf.stages.ifl`). Published (ImageNet-GLT): λ = 0.001 from epoch 60 of 100, 0.005 from 80.

    Args:
        class_counts: (C,).
        num_features: d.
        penalty_weight: λ in the end, 0 or more.
        start: the share of the training after which there is a penalty, in [0, 1].

    Attributes:
        centres, seen: (C, d) and bool (C,), saved and resumed; with several processes those of their joint batches.
    """

    takes_features = True

    def __init__(self, class_counts: Tensor, num_features: int, penalty_weight: float = 0.005, start: float = 0.6):
        super().__init__()
        require(penalty_weight >= 0, "penalty_weight", penalty_weight, "0 or more")
        require(0 <= start <= 1, "start", start, "a share of the training, in [0, 1]")
        self.penalty_weight, self.start = penalty_weight, start
        self.register_buffer("centres", torch.zeros(len(class_counts), num_features))
        self.register_buffer("seen", torch.zeros(len(class_counts), dtype=torch.bool))

    def forward(
        self, logits: Tensor, labels: Tensor, groups: Tensor | None, features: Tensor, weight: Tensor
    ) -> Tensor:
        """As of `TrainingLoss`; in training mode it first moves `centres`."""
        if self.training:
            self._follow(features.detach(), labels)
        loss = F.cross_entropy(logits, labels)
        if self.progress < self.start:
            return loss
        late = self.progress >= (1 + self.start) / 2
        distances = (features - self.centres[labels].to(features.dtype)).square().sum(1) / 2
        return loss + self.penalty_weight * (1 if late else BEFORE) * distances.mean()

    def _follow(self, features: Tensor, labels: Tensor) -> None:
        features, labels = all_gather_rows([features, labels])
        classes, place, sizes = labels.unique(return_inverse=True, return_counts=True)
        sums = features.new_zeros(len(classes), features.shape[1]).index_add_(0, place, features)
        means = (sums / sizes[:, None]).to(self.centres.dtype)
        rate = torch.where(self.seen[classes], RATE, 1.0)[:, None]
        self.centres[classes] = torch.lerp(self.centres[classes], means, rate)
        self.seen[classes] = True
