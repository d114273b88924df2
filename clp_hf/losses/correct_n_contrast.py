"""Correct-N-Contrast: images of one class that look alike to nobody are pulled together."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..utils.options import require
from .base import TrainingLoss
from .environments import environments_of_groups


class CorrectNContrast(TrainingLoss):
    """w L_con + (1 − w) CE (Zhang et al. 2022, "Correct-N-Contrast: a contrastive approach for improving robustness to
    spurious correlations", Eq. 5 to 7).

    Of an image i the positives P are those of its class and another attribute, the negatives N those of another class
    and its attribute, and with s the cosine of two features, divided by τ,
    L_con(i) = −1/|P| Σ_{p in P} log( exp s_ip / (Σ_{n in N} exp s_in + Σ_{q in P} exp s_iq) ).
    The attribute is what a plainly trained network takes an image for (`clp_hf.stages.cnc`), or a known one. Published:
    w = 0.75, τ = 0.1 on Waterbirds and 0.05 on CelebA.

    They draw as many positives as negatives for each of a few anchors. Here a batch has all groups equally often
    (`train_sampling="group"`), and every image with a positive and a negative in it is an anchor. With several
    processes it is the joint batch.

    Args:
        cell_counts: (C, G). Groups are (class, attribute) pairs, group = class · attributes + attribute.
        contrastive_weight: w, in [0, 1].
        temperature: τ, more than 0.
    """

    takes_features = True
    of_joint_batch = True

    def __init__(self, cell_counts: Tensor, contrastive_weight: float = 0.75, temperature: float = 0.1):
        super().__init__()
        require(0 <= contrastive_weight <= 1, "contrastive_weight", contrastive_weight, "in [0, 1]")
        require(temperature > 0, "temperature", temperature, "more than 0")
        self.contrastive_weight, self.temperature = contrastive_weight, temperature
        self.register_buffer("attributes", environments_of_groups(cell_counts))

    def forward(self, logits: Tensor, labels: Tensor, groups: Tensor, features: Tensor) -> Tensor:
        """As of `TrainingLoss`."""
        plain = F.cross_entropy(logits, labels)
        return self.contrastive_weight * self.contrast(labels, groups, features) + (1 - self.contrastive_weight) * plain

    def contrast(self, labels: Tensor, groups: Tensor, features: Tensor) -> Tensor:
        """The mean of L_con over the anchors of a batch; 0 where it has none."""
        attributes = self.attributes[groups]
        same_class, same_attribute = labels[:, None] == labels, attributes[:, None] == attributes
        positive, negative = same_class & ~same_attribute, ~same_class & same_attribute
        anchors = positive.any(1) & negative.any(1)
        if not anchors.any():
            return 0 * features.sum()  # with its graph, as other processes have
        units = F.normalize(features, dim=-1)
        similar = (units @ units.T / self.temperature)[anchors]
        positive, negative = positive[anchors], negative[anchors]
        normaliser = similar.masked_fill(~(positive | negative), -torch.inf).logsumexp(1, keepdim=True)
        losses = ((normaliser - similar) * positive).sum(1) / positive.sum(1)
        return losses.mean()
