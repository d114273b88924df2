"""Learning from failure: a second network takes the shortcut, and what it fails at counts more for the first."""

import torch.nn.functional as F
from torch import Tensor

from ..generalised_cross_entropy import GeneralisedCrossEntropy
from .base import PairLoss, PairLosses


class LearningFromFailure(PairLoss):
    """LfF (Nam et al. 2020, "Learning from failure: training debiased classifier from biased classifier", Eq. 2 and 3,
    Algorithm 1).

    The second network, f_B, is trained by the generalised cross-entropy, which makes what is easy for it easier still.
    The one that is kept, f_D, is trained by the cross-entropy, each sample weighted by its relative difficulty,
    W = CE(f_B) / (CE(f_B) + CE(f_D)). Published: q = 0.7.

    As in Algorithm 1 both losses of W are those of this step. The published program smooths those of every image over
    its epochs, and divides them by the largest of its class.

    Args:
        q: of the generalised cross-entropy, in (0, 1].
    """

    def __init__(self, q: float = 0.7):
        super().__init__()
        self.amplified = GeneralisedCrossEntropy(q)

    def forward(self, logits: Tensor, peer_logits: Tensor, labels: Tensor) -> PairLosses:
        """As of `PairLoss`."""
        own = F.cross_entropy(logits, labels, reduction="none")
        biased = F.cross_entropy(peer_logits.detach(), labels, reduction="none")
        weights = biased / (biased + own.detach()).clamp(min=1e-8)
        return PairLosses((weights * own).mean(), self.amplified(peer_logits, labels), weights)
