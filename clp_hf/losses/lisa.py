"""LISA: mixup between groups, of one class or of one attribute, so that the attribute stops telling the class."""

import torch
from torch import Tensor

from ..utils.options import require
from .environments import attributes_per_class
from .mixing import Mixing, draw_suitable


class LISA(Mixing):
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
        num_labels, num_groups = cell_counts.shape
        super().__init__(num_labels, alpha)
        require(0 <= intra_label <= 1, "intra_label", intra_label, "a probability, in [0, 1]")
        self.intra_label = intra_label
        self.num_attributes = attributes_per_class(cell_counts)
        if self.num_attributes is None:
            expected = -(-num_groups // num_labels)
            labels, groups = torch.as_tensor(cell_counts).nonzero().T
            wrong = (groups // expected != labels).nonzero()[0, 0]
            raise ValueError(
                f"LISA reads the attribute off the group, group = class · {expected} + attribute, but group "
                f"{groups[wrong]} has images of class {labels[wrong]}. Make groups with "
                "clp_hf.data.groups.add_groups."
            )

    def partners(self, labels: Tensor, groups: Tensor) -> Tensor:
        """As of `Mixing`."""
        return self.draw_partners(labels, groups, intra_label=torch.rand(()).item() < self.intra_label)

    def draw_partners(self, labels: Tensor, groups: Tensor, intra_label: bool) -> Tensor:
        """For every sample the index (n,) of a random partner, its own where there is none."""
        attributes = groups % self.num_attributes
        same, other = (labels, attributes) if intra_label else (attributes, labels)
        return draw_suitable((same[:, None] == same) & (other[:, None] != other))
