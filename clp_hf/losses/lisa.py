"""LISA: mixup between groups, of one class or of one attribute, so that the attribute stops telling the class."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import TrainingLoss, require


class LISA(TrainingLoss):
    """Learning invariant predictors by selective augmentation (Yao et al. 2022, Algorithm 1, Eq. 4), with mixup.

    Each batch is mixed, with probability `intra_label`, between images of one class and different attributes, else
    between images of one attribute and different classes: λ x_i + (1 − λ) x_j with λ ~ Beta(α, α) for every image,
    labels alike. Partners are drawn from the same batch; an image without one stays as it is. Published: probability
    0.5, α = 2, batches with all groups equally often (`train_sampling="group"`). Their CutMix variant is left out.

    Args:
        cell_counts: (C, G). Groups are (class, attribute) pairs, group = class · attributes + attribute, as
            `clp_hf.data.groups` makes them.
        intra_label: in [0, 1].
        alpha: more than 0.

    Raises:
        ValueError: the groups are not such pairs.
    """

    def __init__(self, cell_counts: Tensor, intra_label: float = 0.5, alpha: float = 2.0):
        super().__init__()
        require(0 <= intra_label <= 1, "intra_label", intra_label, "a probability, in [0, 1]")
        require(alpha > 0, "alpha", alpha, "more than 0")
        self.intra_label, self.alpha = intra_label, alpha
        self.num_labels, num_groups = cell_counts.shape
        self.num_attributes = -(-num_groups // self.num_labels)
        labels, groups = torch.as_tensor(cell_counts).nonzero().T
        if wrong := (groups // self.num_attributes != labels).nonzero()[:, 0].tolist():
            raise ValueError(
                f"LISA reads the attribute off the group, group = class · {self.num_attributes} + attribute, but group "
                f"{groups[wrong[0]]} has images of class {labels[wrong[0]]}. Make groups with "
                "clp_hf.data.groups.add_groups."
            )

    def forward(self, logits: Tensor, labels: Tensor, groups: Tensor | None = None) -> Tensor:
        """As of `TrainingLoss`; labels may be mixed too, (n, C)."""
        return F.cross_entropy(logits, labels)

    def of_batch(self, logits_of: Callable[[Tensor], Tensor], batch: Mapping[str, Any]) -> Tensor:
        """As of `TrainingLoss`."""
        pixel_values, targets = self.mix(batch["pixel_values"], batch["labels"], batch["group"])
        return self(logits_of(pixel_values), targets)

    def mix(self, pixel_values: Tensor, labels: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
        """Mixed images (n, 3, H, W) and labels (n, C)."""
        partners = self.draw_partners(labels, groups, intra_label=torch.rand(()).item() < self.intra_label)
        concentration = torch.full((len(labels),), self.alpha, device=labels.device)
        share = torch.distributions.Beta(concentration, concentration).sample()
        targets = F.one_hot(labels, self.num_labels).to(share.dtype)
        targets = torch.lerp(targets[partners], targets, share[:, None])
        weight = share.to(pixel_values.dtype)[:, None, None, None]
        return torch.lerp(pixel_values[partners], pixel_values, weight), targets

    def draw_partners(self, labels: Tensor, groups: Tensor, intra_label: bool) -> Tensor:
        """For every sample the index (n,) of a random partner, its own where there is none."""
        attributes = groups % self.num_attributes
        same, other = (labels, attributes) if intra_label else (attributes, labels)
        suitable = (same[:, None] == same) & (other[:, None] != other)
        suitable |= torch.diag(~suitable.any(1))
        return torch.multinomial(suitable.float(), 1)[:, 0]
