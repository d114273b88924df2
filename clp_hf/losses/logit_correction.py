"""Logit Correction: logits are moved by how frequent each class is beside the image's attribute."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..utils.options import require
from .base import Outputs, TrainingLoss
from .environments import attributes_per_class
from .mixing import draw_suitable

LEAST = 1e-4  # added to a frequency before its logarithm


class LogitCorrection(TrainingLoss):
    """Cross-entropy of u + log P(·, a), with group mixup (Liu et al. 2023, "Avoiding spurious correlations via logit
    correction", Eq. 4 and Algorithm 1).

    a is the attribute of the image and P(y, a) how frequent each class is beside it, so that the loss is the
    cross-entropy of a training set in which all groups are alike. Every image is mixed with one of its own class and of
    a rare group, λ x_i + (1 − λ) x_j with λ ~ U(1 − 2τ, 1 − τ) for the batch, P alike; rare are all groups but the
    largest of the class, and without one in the batch it is any image of the class. τ grows to 0.5 in `ramp` of the
    training. Published, on Waterbirds: 50 of 300 epochs.

    There P is a running mean of what a biased network says that is trained beside this one. Here the groups are known,
    or were told by such a network before (`clp_hf.stages.logit_correction`), and P are their frequencies.

    Args:
        cell_counts: (C, G). Groups are (class, attribute) pairs, group = class · attributes + attribute.
        strength: η, of log P^η, 0 or more.
        ramp: in (0, 1].

    Raises:
        ValueError: the groups are not such pairs.
    """

    def __init__(self, cell_counts: Tensor, strength: float = 1.0, ramp: float = 50 / 300):
        super().__init__()
        require(strength >= 0, "strength", strength, "0 or more")
        require(0 < ramp <= 1, "ramp", ramp, "a share of the training, above 0 and up to 1")
        self.strength, self.ramp = strength, ramp
        counts = torch.as_tensor(cell_counts).double()
        size = attributes_per_class(counts)
        if size is None:
            raise ValueError(
                "Logit correction reads the attribute off the group, group = class · attributes + attribute, and these "
                "are no such pairs. Make groups with clp_hf.data.groups.add_groups."
            )
        groups = torch.arange(counts.shape[1])
        beside = counts.new_zeros(len(counts), size).index_add_(1, groups % size, counts)  # (C, A)
        shares = (beside / beside.sum(0).clamp(min=1)).T.float()
        self.register_buffer("shares", shares[groups % size])  # P(· | a) of every group, (G, C)
        self.register_buffer("is_rare", counts.sum(0) < counts.max(1).values[groups // size])

    def forward(self, logits: Tensor, labels: Tensor, groups: Tensor | None = None) -> Tensor:
        """As of `TrainingLoss`."""
        return self.corrected(logits, labels, self.shares[groups])

    def corrected(self, logits: Tensor, labels: Tensor, shares: Tensor) -> Tensor:
        """The loss with the frequencies P(·, a) of every image, (n, C)."""
        return F.cross_entropy(logits + (shares.to(logits.dtype) ** self.strength + LEAST).log(), labels)

    def of_batch(self, classify: Callable[[Tensor], Outputs], batch: Mapping[str, Any]) -> Tensor:
        """As of `TrainingLoss`."""
        pixel_values, labels, groups = batch["pixel_values"], batch["labels"], batch["group"]
        partners = self.partners(labels, groups)
        tau = 0.5 * math.exp(-5 * max(1 - self.progress / self.ramp, 0) ** 2)
        share = 1 - 2 * tau + tau * torch.rand(()).item()
        mixed, shares = (torch.lerp(rows[partners], rows, share) for rows in (pixel_values, self.shares[groups]))
        return self.corrected(classify(mixed).logits, labels, shares)

    def partners(self, labels: Tensor, groups: Tensor) -> Tensor:
        """For every image the index (n,) of the one of its class that it is mixed with."""
        same = labels[:, None] == labels
        rare = same & self.is_rare[groups]
        return draw_suitable(torch.where(rare.any(1, keepdim=True), rare, same))
