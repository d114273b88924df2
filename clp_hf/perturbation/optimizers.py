"""The optimizers of Ω, by the value of `perturbation_optim`."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.optim import Optimizer

from .base import MetaNetwork

# A short second moment: hypergradients shrink a thousandfold in the first steps, and 0.999 would stall Ω after them.
PERTURBATION_BETAS = (0.9, 0.95)

OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "adamw": partial(torch.optim.AdamW, betas=PERTURBATION_BETAS),
    "sgd": torch.optim.SGD,  # Ωᵗ⁺¹ = Ωᵗ − η₂ ∇ (Eq. 9)
}


def build_optimizer(network: MetaNetwork, settings: Any) -> Optimizer:
    """The optimizer of Ω.

    Args:
        network: Ω.
        settings: has `perturbation_optim`, a name in `OPTIMIZERS`, `perturbation_learning_rate`, η₂, and
            `perturbation_weight_decay`.
    """
    return OPTIMIZERS[settings.perturbation_optim](
        network.parameters(), lr=settings.perturbation_learning_rate, weight_decay=settings.perturbation_weight_decay
    )
