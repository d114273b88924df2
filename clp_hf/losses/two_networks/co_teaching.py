"""Co-teaching: each of two networks picks the samples that the other one learns from."""

import torch.nn.functional as F
from torch import Tensor

from .base import PairLosses, SmallLossSelection


class CoTeaching(SmallLossSelection):
    """Co-teaching (Han et al. 2018, "Co-teaching: robust training of deep neural networks with extremely noisy labels",
    Algorithm 1).

    Each network takes the samples of a batch whose cross-entropy is small in it, of which `SmallLossSelection` says how
    many, and the other one is trained on these. The two err differently, so that neither confirms its own errors.
    Arguments are those of `SmallLossSelection`.
    """

    def forward(self, logits: Tensor, peer_logits: Tensor, labels: Tensor) -> PairLosses:
        """As of `PairLoss`."""
        own, peer = (F.cross_entropy(values, labels, reduction="none") for values in (logits, peer_logits))
        weights = self.select(peer)
        return PairLosses((weights * own).mean(), (self.select(own) * peer).mean(), weights)
