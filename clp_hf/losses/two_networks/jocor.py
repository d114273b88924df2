"""JoCoR: two networks that are to agree, trained on the samples on which they do."""

import torch.nn.functional as F
from torch import Tensor

from ...utils.options import require
from .base import PairLosses, SmallLossSelection


class JoCoR(SmallLossSelection):
    """Joint training with co-regularisation (Wei et al. 2020, "Combating noisy labels by agreement", Eq. 2 to 5).

    ℓ = (1 − λ) (CE₁ + CE₂) + λ (KL(p₁‖p₂) + KL(p₂‖p₁)) of every sample, and both networks are trained by its mean over
    the samples of a batch where it is small. Published: λ = 0.9 on CIFAR-10, and `SmallLossSelection` as in
    co-teaching.

    Args:
        noise_rate, forget_rate, warm_up: as of `SmallLossSelection`.
        agreement: λ, in [0, 1].
    """

    def __init__(
        self,
        noise_rate: float | None = None,
        forget_rate: float | None = None,
        warm_up: float = 0.05,
        agreement: float = 0.9,
    ):
        super().__init__(noise_rate, forget_rate, warm_up)
        require(0 <= agreement <= 1, "agreement", agreement, "a share of the loss, in [0, 1]")
        self.agreement = agreement

    def forward(self, logits: Tensor, peer_logits: Tensor, labels: Tensor) -> PairLosses:
        """As of `PairLoss`; the agreement is a half of each loss, and its gradient is in both networks."""
        own, peer = (F.cross_entropy(values, labels, reduction="none") for values in (logits, peer_logits))
        log_p, log_q = logits.log_softmax(-1), peer_logits.log_softmax(-1)
        apart = ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(-1)  # KL(p‖q) + KL(q‖p)
        own, peer = ((1 - self.agreement) * loss + self.agreement / 2 * apart for loss in (own, peer))
        weights = self.select(own + peer)
        return PairLosses((weights * own).mean(), (weights * peer).mean(), weights)
