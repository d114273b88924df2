"""L_DMI: an information measure that wrong labels scale by a constant, whatever the classifier."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..utils.options import require
from .base import TrainingLoss

RIDGE = 1e-3


class DeterminantMutualInformation(TrainingLoss):
    """−log |det Q|, with Q = Oᵀ P / n the joint distribution of labels (one-hot O) and predicted probabilities P in the
    batch (Xu et al. 2019, "L_DMI: a novel information-theoretic loss function for training deep nets robust to label
    noise").

    Wrong labels that depend on the class alone multiply det Q by a constant. It does not say which output is which
    class, so training begins with cross-entropy, as their second stage starts at the classifier of a first one. Theirs
    has a learning rate of its own (1e-6 on CIFAR-10, after 0.01); this one keeps to the schedule of the run, and begins
    late in it. A batch without images of some class has det Q = 0, always so with many classes: Q is that of the
    classes that are there. Their code adds 0.001 to the determinant of Oᵀ P; here 0.001 is added to the diagonal of Q
    with its rows divided by their sums, which keeps the gradient finite for any number of classes.

    Args:
        warm_up: the share of the training that is by cross-entropy, in [0, 1].
    """

    of_joint_batch = True

    def __init__(self, warm_up: float = 0.8):
        super().__init__()
        require(0 <= warm_up <= 1, "warm_up", warm_up, "a share of the training, in [0, 1]")
        self.warm_up = warm_up

    def forward(self, logits: Tensor, labels: Tensor, groups: Tensor | None = None) -> Tensor:
        """As of `TrainingLoss`."""
        if self.progress < self.warm_up:
            return F.cross_entropy(logits, labels)
        classes, place, sizes = labels.unique(return_inverse=True, return_counts=True)
        labelled = F.one_hot(place, len(classes)).T.to(logits.dtype) / sizes[:, None]
        given_label = labelled @ logits.softmax(-1)[:, classes]
        ridge = RIDGE * torch.eye(len(classes), dtype=logits.dtype, device=logits.device)
        frequencies = torch.log(sizes / len(labels)).sum()
        return -torch.linalg.slogdet(given_label + ridge).logabsdet - frequencies
