"""Meta-Weight-Net: sample weights from a small network of the loss, meta-learned one step ahead."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ..utils.precision import at_least_float32
from .base import MetaNetwork


class WeightNetwork(MetaNetwork):
    """The weight V(ℓ; Ω) in (0, 1) of a sample from its loss ℓ (Shu et al. 2019, "Meta-Weight-Net: learning an explicit
    mapping for sample weighting", Eq. 2 to 5), in place of CLP's perturbation network.

    The weighted loss is Σ V_i ℓ_i / Σ V_i over the batch of each process, not Σ V_i ℓ_i / n (Eq. 3): the weights decide
    between samples, not how large the step is. Published: one hidden layer of 100 ReLU units, Adam at 1e-3.

    Args:
        hidden_size: width of the hidden layer.
    """

    NAME = "weight"
    FOLDER = "weight_network"
    CARD = "meta-weight-net"
    LEVEL = "sample weight"
    TITLE = "Sample weight by {}"
    CAPTION = "Mean weight of the training samples."
    characteristics = ("loss",)

    def __init__(self, hidden_size: int = 100):
        super().__init__()
        self.config = {"hidden_size": hidden_size}
        self.hidden = nn.Linear(1, hidden_size)
        self.output = nn.Linear(hidden_size, 1)

    @classmethod
    def of(cls, settings: Any, num_labels: int, class_proportions: Tensor, **facts: Any) -> "WeightNetwork":
        """As of `MetaNetwork`."""
        return cls(hidden_size=settings.perturbation_hidden_size)

    def forward(self, characteristics: Tensor, labels: Tensor, extrinsic_logits: Tensor | None = None) -> Tensor:
        """Sample weights (n,) from losses (n, 1); the other arguments are CLP's."""
        return self.output(F.relu(self.hidden(characteristics)))[:, 0].sigmoid()

    def training_loss(self, logits: Tensor, output: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """The weighted mean of the cross-entropy; of several processes, each takes that of its own batch."""
        logits = at_least_float32(logits)
        losses = F.cross_entropy(logits, labels, reduction="none", label_smoothing=label_smoothing)
        # all weights may come near zero together
        return (output * losses).sum() / output.sum().clamp(min=1e-8)

    def inner_problem(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """The weights, over their mean."""
        return output.new_zeros(len(output), 1), output / output.mean().clamp(min=1e-8)

    def level(self, output: Tensor, labels: Tensor) -> Tensor:
        """The weights."""
        return output

    def raises_loss(self, logits: Tensor, output: Tensor, labels: Tensor) -> Tensor:
        """Whether the weight is above the mean of the batch."""
        return output > output.mean()

    def signal(self, derivative: Tensor, labels: Tensor) -> Tensor:
        """The opposite of the derivative in the weight."""
        return -derivative
