"""MFRW-MES: an advisor that says of every sample which of its features, and which other classes, are to count."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..losses import Outputs
from .base import MetaNetwork


class AdvisorNetwork(MetaNetwork):
    """Meta feature re-weighting with meta equalisation softmax (Ricci et al. 2023, "Meta-learning advisor networks for
    long-tail and noisy labels in social image classification").

    A small network, meta-learned one step ahead as in Meta-Weight-Net, sees the features h of a sample and its loss. It
    gives a weight a of every feature, and a weight w of every class but the sample's own in the softmax, so that the
    training loss is −log p_y of p_j ∝ w_j exp(⟨W_j, a ⊙ h⟩ + b_j), w_y = 1. A wrong label then teaches what some of
    the features say, and a class that is too frequent is held back less. The classifier is used without it.

    Written from what the authors say of it, without their program: one hidden layer, as in Meta-Weight-Net, features in
    the scale of their sample, and weights 2 σ(·) in (0, 2) that start at 1, are what was taken here. The hypergradient
    goes through features, head and logits, exactly.

    Args:
        num_features: d.
        num_labels: C.
        hidden_size: width of the hidden layer.
    """

    NAME = "feature_weight"
    FOLDER = "advisor_network"
    CARD = "mfrw-mes"
    LEVEL = "mean weight of the features"
    TITLE = "Weight of the features by {}"
    CAPTION = "Mean weight of the features of the training samples; 1 leaves them as they are."
    characteristics = ("loss",)
    takes_features = True

    def __init__(self, num_features: int, num_labels: int, hidden_size: int = 100):
        super().__init__()
        self.config = {"num_features": num_features, "num_labels": num_labels, "hidden_size": hidden_size}
        self.num_features, self.num_labels = num_features, num_labels
        self.hidden = nn.Linear(1 + num_features, hidden_size)
        self.output = nn.Linear(hidden_size, num_features + num_labels)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    @classmethod
    def of(
        cls, settings: Any, num_labels: int, class_proportions: Tensor, class_counts: Tensor, num_features: int
    ) -> AdvisorNetwork:
        """As of `MetaNetwork`."""
        return cls(num_features, num_labels, settings.perturbation_hidden_size)

    def forward(self, characteristics: Tensor, labels: Tensor, extrinsic_logits: Tensor | None = None) -> Tensor:
        """Of features the weights, of classes their logarithms, (n, d + C); from loss and features, (n, 1 + d)."""
        loss, features = characteristics.split([1, self.num_features], dim=1)
        inputs = torch.cat([loss, F.layer_norm(features, features.shape[1:])], dim=1)
        advice = self.output(F.relu(self.hidden(inputs)))
        features, classes = advice.split([self.num_features, self.num_labels], dim=1)
        others = 1 - F.one_hot(labels, self.num_labels)
        return torch.cat([2 * features.sigmoid(), (F.logsigmoid(classes) - F.logsigmoid(0 * classes)) * others], dim=1)

    def _advised(self, outputs: Outputs, output: Tensor) -> Tensor:
        features, classes = output.split([self.num_features, self.num_labels], dim=1)
        return outputs.logits + ((features - 1) * outputs.features) @ outputs.weight.T + classes

    def training_loss(self, logits: Outputs, output: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """As of `MetaNetwork`."""
        return F.cross_entropy(self._advised(logits, output), labels, label_smoothing=label_smoothing)

    def level(self, output: Tensor, labels: Tensor) -> Tensor:
        """The mean weight of the features."""
        return output[:, : self.num_features].mean(1)

    def raises_loss(self, logits: Outputs, output: Tensor, labels: Tensor) -> Tensor:
        """Whether the cross-entropy is above that of the logits as they are."""
        advised = F.cross_entropy(self._advised(logits, output), labels, reduction="none")
        return advised > F.cross_entropy(logits.logits, labels, reduction="none")

    def remember(self, characteristics: Tensor, labels: Tensor) -> None:
        """Nothing: its inputs are features, over which no response is drawn."""
