"""Mixup between images that a method pairs: images and labels are mixed alike."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..utils.options import require
from .base import Outputs, TrainingLoss


class Mixing(TrainingLoss):
    """Cross-entropy of λ x_i + (1 − λ) x_j with λ ~ Beta(α, α) for every image, labels alike.

    Args:
        num_labels: C.
        alpha: more than 0.
    """

    def __init__(self, num_labels: int, alpha: float):
        super().__init__()
        require(alpha > 0, "alpha", alpha, "more than 0")
        self.num_labels, self.alpha = num_labels, alpha

    def forward(self, logits: Tensor, labels: Tensor, groups: Tensor | None = None) -> Tensor:
        """As of `TrainingLoss`; labels may be mixed too, (n, C)."""
        return F.cross_entropy(logits, labels)

    def of_batch(self, classify: Callable[[Tensor], Outputs], batch: Mapping[str, Any]) -> Tensor:
        """As of `TrainingLoss`."""
        pixel_values, targets = self.mix(batch["pixel_values"], batch["labels"], batch["group"])
        return self(classify(pixel_values).logits, targets)

    def mix(self, pixel_values: Tensor, labels: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
        """Mixed images (n, 3, H, W) and labels (n, C)."""
        partners = self.partners(labels, groups)
        concentration = torch.full((len(labels),), self.alpha, device=labels.device)
        share = torch.distributions.Beta(concentration, concentration).sample()
        targets = F.one_hot(labels, self.num_labels).to(share.dtype)
        targets = torch.lerp(targets[partners], targets, share[:, None])
        weight = share.to(pixel_values.dtype)[:, None, None, None]
        return torch.lerp(pixel_values[partners], pixel_values, weight), targets

    def partners(self, labels: Tensor, groups: Tensor) -> Tensor:
        """For every image the index (n,) of the one that it is mixed with."""
        raise NotImplementedError


def draw_suitable(suitable: Tensor) -> Tensor:
    """For every image a random one (n,) of those that suit it, (n, n); itself where none does."""
    suitable = suitable | torch.diag(~suitable.any(1))
    return torch.multinomial(suitable.float(), 1)[:, 0]
