"""L2RW: the weight of a sample is how much its own gradient helps the meta set, in this very step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..bilevel.distributed import all_reduce_mean
from ..utils.precision import at_least_float32
from .of_batch import BatchHyperparameters


class LearnedWeights(BatchHyperparameters):
    """Learning to reweight (Ren et al. 2018, "Learning to reweight examples for robust deep learning", Eq. 6 to 12 and
    Algorithm 1).

    Of the loss Σ_i ε_i ℓ_i the derivative of the meta loss one step ahead is taken in ε at ε = 0; the weights are
    max(−∂/∂ε_i, 0), over their sum in the batch. As the step ahead is then none, Ŵ = W, the derivative is
    −η ⟨∇L_meta(W), ∇ℓ_i(W)⟩: one dual pass along ∇L_meta gives it for all samples. η goes with the sum.

    The weights sum to 1 in the joint batch of all processes. A batch in which no sample helps is left out, as there. In
    steps without a hypergradient (`meta_every`) all samples count alike.
    """

    NAME = "weight"
    CARD = "l2rw"
    LEVEL = "sample weight"
    TITLE = "Sample weight by {}"
    CAPTION = "Mean weight of the training samples, over the mean of their batch."
    characteristics = ("loss",)
    at_rest = True

    def __init__(self):
        super().__init__()
        self.config = {}
        self.register_buffer("one", torch.ones(()), persistent=False)  # of the device and precision of the run

    @classmethod
    def of(cls, settings: Any, num_labels: int, class_proportions: Tensor, **facts: Any) -> LearnedWeights:
        """As of `MetaNetwork`."""
        return cls()

    def start(self, labels: Tensor) -> Tensor:
        """Weights of 0."""
        return self.one.new_zeros(len(labels))

    def without(self, labels: Tensor) -> Tensor:
        """Weights of 1."""
        return self.one.new_ones(len(labels))

    def stepped(self, gradient: Tensor, derivative: Callable[[], Tensor]) -> Tensor:
        """As of `BatchHyperparameters`; weights of mean 1 over the joint batch, or all 0."""
        with torch.enable_grad():
            helpful = (-derivative()).clamp(min=0)
        (mean,) = all_reduce_mean([helpful.mean()])
        return helpful / torch.where(mean > 0, mean, 1)

    def training_loss(self, logits: Tensor, output: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """As of `MetaNetwork`: the weighted cross-entropy, over the number of samples."""
        logits = at_least_float32(logits)
        return (output * F.cross_entropy(logits, labels, reduction="none", label_smoothing=label_smoothing)).mean()

    def level(self, output: Tensor, labels: Tensor) -> Tensor:
        """The weights."""
        return output

    def raises_loss(self, logits: Tensor, output: Tensor, labels: Tensor) -> Tensor:
        """Whether the weight is above the mean of the batch."""
        return output > output.mean()

    def signal(self, derivative: Tensor, labels: Tensor) -> Tensor:
        """The opposite of the derivative in the weight."""
        return -derivative
