"""Active passive loss (APL): two losses that wrong labels cannot mislead, one to learn fast, one to stay robust."""

import math

import torch.nn.functional as F
from torch import Tensor

from ..utils.options import require
from .base import TrainingLoss

# −log 0 in the reverse cross-entropy: the paper clips it, the published code at log 10⁻⁴.
CLIPPED_LOG_ZERO = -math.log(1e-4)


class ActivePassive(TrainingLoss):
    """α · NCE + β · passive loss (Ma et al. 2020, "Normalized loss functions for deep learning with noisy labels",
    Eq. 6 and section 3.3).

    Active: the normalised cross-entropy, log p_y / Σ_k log p_k. Passive: the mean absolute error 1 − p_y, or the
    reverse cross-entropy −log(10⁻⁴) (1 − p_y), which is the same but for its size. Published: α = β = 1 on CIFAR-10; on
    CIFAR-100 α = 10 and β = 0.1 (NCE + RCE) or 1 (NCE + MAE).

    Args:
        passive_scale: of 1 − p_y: 1 for MAE, `CLIPPED_LOG_ZERO` for RCE.
        alpha, beta: 0 or more.
    """

    def __init__(self, passive_scale: float, alpha: float = 1.0, beta: float = 1.0):
        super().__init__()
        require(alpha >= 0, "alpha", alpha, "0 or more")
        require(beta >= 0, "beta", beta, "0 or more")
        self.alpha, self.beta = alpha, beta * passive_scale

    def forward(self, logits: Tensor, labels: Tensor, groups: Tensor | None = None) -> Tensor:
        """As of `TrainingLoss`."""
        log_probabilities = F.log_softmax(logits, dim=-1)
        own = log_probabilities.gather(1, labels[:, None])[:, 0]
        active = own / log_probabilities.sum(-1)
        passive = -own.expm1()
        return (self.alpha * active + self.beta * passive).mean()


class NCEandMAE(ActivePassive):
    """`ActivePassive` with the mean absolute error."""

    def __init__(self, alpha: float = 1.0, beta: float = 1.0):
        super().__init__(1.0, alpha, beta)


class NCEandRCE(ActivePassive):
    """`ActivePassive` with the reverse cross-entropy."""

    def __init__(self, alpha: float = 1.0, beta: float = 1.0):
        super().__init__(CLIPPED_LOG_ZERO, alpha, beta)
