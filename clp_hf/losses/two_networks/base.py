"""What losses of two networks share: their interface, and the small-loss samples of a joint batch."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ...bilevel.distributed import all_gather_rows
from ...utils.options import require
from ..base import TrainingLoss


class PairLosses(NamedTuple):
    """Of a batch.

    Attributes:
        own: a scalar, what the network that is kept is trained by.
        peer: a scalar, what the second one is trained by. The gradient is that of the sum of both.
        weights: (n,), 0 or more, detached: how much each sample counts in `own`.
    """

    own: Tensor
    peer: Tensor
    weights: Tensor


class PairLoss(TrainingLoss):
    """A training loss of two networks, which see the same batch.

    What one network decides of the other is constant: gradients go through the losses alone. It is a mean over images
    with weights that are those of the joint batch, so that two processes are one; under gradient accumulation they are
    those of each micro-batch.
    """

    def forward(self, logits: Tensor, peer_logits: Tensor, labels: Tensor) -> PairLosses:
        """The losses of a batch.

        Args:
            logits, peer_logits: (n, C), float32 or float64, of the network that is kept, and of the second one.
            labels: (n,) integers.
        """
        raise NotImplementedError


class SmallLossSelection(PairLoss):
    """Trains on the samples of small loss, fewer and fewer: the share 1 − τ min(t / T_k, 1) of a batch.

    A network learns what labels have in common before it learns single wrong ones (Han et al. 2018, Algorithm 1,
    R(T)); there τ is the share of wrong labels, taken as known, and T_k = 10 of 200 epochs.

    Args:
        noise_rate: the share of the training images whose label is known to be wrong; None where nobody knows.
        forget_rate: τ, in [0, 1); by default `noise_rate`, or else 0.2.
        warm_up: T_k, a share of the training, in [0, 1].
    """

    def __init__(self, noise_rate: float | None = None, forget_rate: float | None = None, warm_up: float = 0.05):
        super().__init__()
        rate = forget_rate if forget_rate is not None else 0.2 if noise_rate is None else noise_rate
        require(0 <= rate < 1, "forget_rate", rate, "a share of the images, 0 or more and less than 1")
        require(0 <= warm_up <= 1, "warm_up", warm_up, "a share of the training, in [0, 1]")
        self.forget_rate, self.warm_up = rate, warm_up

    @property
    def kept_share(self) -> float:
        """Of a batch, now."""
        return 1 - self.forget_rate * (min(self.progress / self.warm_up, 1) if self.warm_up else 1)

    def select(self, losses: Tensor) -> Tensor:
        """Weights (n,) of mean 1 over the joint batch, equal for its samples of smallest loss and 0 for the others."""
        losses = losses.detach()
        (joint,) = all_gather_rows([losses])
        kept = max(1, round(self.kept_share * len(joint)))
        largest = joint.kthvalue(kept).values
        return (losses <= largest) * (len(joint) / torch.count_nonzero(joint <= largest)).to(losses.dtype)
