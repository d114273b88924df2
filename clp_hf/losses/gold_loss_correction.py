"""Gold loss correction: given labels are explained by true ones and by how labels go wrong."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import TrainingLoss

TRUSTED = 1  # the `group` of images whose labels are clean


class GoldLossCorrection(TrainingLoss):
    """−log Σ_k p_k(x) C_kỹ for an image with the given label ỹ, −log p_y(x) for a trusted one (Hendrycks et al. 2018,
    "Using trusted data to train deep networks on labels corrupted by severe noise", Algorithm 1).

    C_kj is the probability that label j is given where k is true, estimated beforehand (`clp_hf.stages.glc`).

    Args:
        corruption: C, (C, C), rows of sum one.

    Raises:
        ValueError: the rows are no probabilities.
    """

    def __init__(self, corruption: Tensor):
        super().__init__()
        rows = torch.as_tensor(corruption).float()
        if rows.ndim != 2 or rows.shape[0] != rows.shape[1] or (rows < 0).any() or (rows.sum(1) - 1).abs().max() > 1e-3:
            raise ValueError("A corruption matrix has a row and a column for every class, and every row adds up to 1.")
        self.register_buffer("log_corruption", rows.clamp(min=1e-8).log())

    def forward(self, logits: Tensor, labels: Tensor, groups: Tensor | None = None) -> Tensor:
        """As of `TrainingLoss`; images of group 1 are trusted, without groups none is."""
        log_probabilities = F.log_softmax(logits, dim=-1)
        corrected = (log_probabilities + self.log_corruption[:, labels].T).logsumexp(-1)
        if groups is not None:
            own = log_probabilities.gather(1, labels[:, None])[:, 0]
            corrected = torch.where(groups == TRUSTED, own, corrected)
        return -corrected.mean()
