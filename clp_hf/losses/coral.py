"""CORAL: features whose covariance is the same in every environment."""

import torch
from torch import Tensor

from .environments import EnvironmentLoss


class CORAL(EnvironmentLoss):
    """Mean of the environments' risks R_e, plus γ times the mean over pairs of environments of ‖C_i − C_j‖²_F / 4d²
    (Sun & Saenko 2016, "Deep CORAL: correlation alignment for deep domain adaptation", Eq. 1).

    C_e is the covariance of the batch's features in e (their Eq. 2 and 3), which takes two images. Theirs are one
    labelled and one unlabelled domain; of several labelled ones every pair is aligned, as in DomainBed, which takes the
    distance of the means too. Published: γ such that both parts are of one size in the end; DomainBed's default is 1.

    Args:
        cell_counts: (C, G), see `EnvironmentLoss`.
        penalty_weight: γ, 0 or more.
    """

    takes_features = True

    def __init__(self, cell_counts: Tensor, penalty_weight: float = 1.0):
        super().__init__(cell_counts, penalty_weight)

    def forward(self, logits: Tensor, labels: Tensor, groups: Tensor, features: Tensor) -> Tensor:
        """As of `TrainingLoss`."""
        members, sizes = self.split(groups)
        risks = self.risks(logits, labels, members, sizes)
        members = members.to(features.dtype)
        centred = features - members.T @ (members @ features / sizes)
        # ⟨C_i, C_j⟩_F out of inner products of images: no d × d matrix for every environment
        several = sizes[:, 0] > 1
        shares = members[several] / (sizes[several] - 1)
        products = shares @ (centred @ centred.T).square() @ shares.T
        squares = products.diagonal()
        distances = squares[:, None] + squares - 2 * products
        pairs = max(distances.numel() - len(distances), 1)
        return risks.mean() + self.penalty_weight * torch.sum(distances) / pairs / (4 * features.shape[1] ** 2)
