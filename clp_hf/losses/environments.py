"""The environment of an image: what a classifier shall not depend on, such as the background or the hospital."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..utils.options import require
from .base import TrainingLoss


def attributes_per_class(cell_counts: Tensor) -> int | None:
    """A, where groups are (class, attribute) pairs, group = class · A + attribute; None where they are not.

    Args:
        cell_counts: (C, G), images of every class and group. Where several A fit, the smallest counts.
    """
    labels, groups = torch.as_tensor(cell_counts).nonzero().T
    sizes = range(1, cell_counts.shape[1] + 1)
    return next((size for size in sizes if (groups // size == labels).all()), None)


def environments_of_groups(cell_counts: Tensor) -> Tensor:
    """The environment of every group, (G,) integers from 0.

    It is the attribute where groups are (class, attribute) pairs, as `clp_hf.data.groups` makes them. Groups that hold
    images of several classes are environments themselves, as DomainBed has them; there may be any number.

    Args:
        cell_counts: (C, G), images of every class and group.

    Raises:
        ValueError: there is one environment only, or each group is of one class and they are numbered otherwise.
    """
    cell_counts = torch.as_tensor(cell_counts)
    present = cell_counts.sum(0) > 0
    groups = torch.arange(cell_counts.shape[1], device=cell_counts.device)
    size = attributes_per_class(cell_counts)
    if size is None and ((cell_counts > 0).sum(0) <= 1).all():
        raise ValueError(
            "Every group is of one class, so that groups are no environments, and their numbers are not class · "
            "attributes + attribute, so that the attribute is not known. Make groups with "
            "clp_hf.data.groups.add_groups."
        )
    environments = groups if size is None else groups % size
    if (found := len(environments[present].unique())) < 2:
        raise ValueError(
            f"The training set has {found} environment, and there is nothing to be independent of. Give the data set "
            "an attribute (--attribute_column) with two values or more."
        )
    return environments


class EnvironmentLoss(TrainingLoss):
    """The mean over environments of their risks R_e, plus a penalty on how they differ.

    R_e is the mean cross-entropy of the batch's images of e; environments that are absent from a batch have no part in
    it. With several processes the batch is the joint one.

    Args:
        cell_counts: (C, G), from which `environments_of_groups` tells the environment of an image.
        penalty_weight: of the penalty, 0 or more.
        anneal_until: the share of the training before which it is another one, in [0, 1].
    """

    of_joint_batch = True

    def __init__(self, cell_counts: Tensor, penalty_weight: float, anneal_until: float = 0.0):
        super().__init__()
        require(penalty_weight >= 0, "penalty_weight", penalty_weight, "0 or more")
        require(0 <= anneal_until <= 1, "anneal_until", anneal_until, "a share of the training, in [0, 1]")
        self.penalty_weight, self.anneal_until = penalty_weight, anneal_until
        self.register_buffer("environments", environments_of_groups(cell_counts))

    def split(self, groups: Tensor) -> tuple[Tensor, Tensor]:
        """The batch by environments: members (E, n) of 0 and 1, a row for each that is present, and sizes (E, 1)."""
        _, place, sizes = self.environments[groups].unique(return_inverse=True, return_counts=True)
        return F.one_hot(place, len(sizes)).T, sizes[:, None]

    def risks(self, logits: Tensor, labels: Tensor, members: Tensor, sizes: Tensor) -> Tensor:
        """R_e of every environment, (E, 1); `members` and `sizes` are those of `split`."""
        return members.to(logits.dtype) @ F.cross_entropy(logits, labels, reduction="none")[:, None] / sizes

    def annealed(self, weight: float, before: float = 1.0) -> float:
        """The weight of a penalty: `before`, as long as less than the share `anneal_until` of the training is done."""
        return weight if self.progress >= self.anneal_until else before

    @staticmethod
    def penalised(risk: Tensor, *penalties: tuple[float, Tensor]) -> Tensor:
        """The risk plus penalties, each after its weight; all of it divided by the largest weight, where it is above 1.

        A penalty that begins to weigh a hundred in the middle of the training would be a step a hundred times as long,
        under which momentum SGD diverges. The division, which is of the code of IRM's authors, keeps its length.
        """
        total = risk + sum(weight * penalty for weight, penalty in penalties)
        return total / max(1.0, *(weight for weight, _ in penalties))
