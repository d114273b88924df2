"""A linear probe that learns along with the classifier."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...bilevel.distributed import all_reduce_mean
from ...utils.precision import at_least_float32
from .base import Evidence

FEATURE_NORM = 5.0


class OnlineProbe(nn.Module):
    """Softmax regression of the label on penultimate features, by one plain gradient step a batch.

    It never passes a gradient on. Of features in which something other than the object predicts the class, as in a
    biased training set, its logits say how strongly; they are the u_z on which CLP means to intervene. Our extension:
    the paper leaves u_z implicit.

    Args:
        num_features: d.
        num_labels: C.
        learning_rate: of the online steps.
        q: 0 for the cross-entropy; above, up to 1, for the generalised cross-entropy (1 − p_y^q) / q (Zhang & Sabuncu
            2018), whose gradient is p_y^q times that of the cross-entropy: what is easy is learned the more, what
            contradicts it hardly.
    """

    def __init__(self, num_features: int, num_labels: int, learning_rate: float = 0.2, q: float = 0.0):
        super().__init__()
        self.learning_rate, self.q = learning_rate, q
        self.register_buffer("mean", torch.zeros(num_features))
        self.register_buffer("num_updates", torch.zeros(()))
        self.register_buffer("weight", torch.zeros(num_labels, num_features))
        self.register_buffer("bias", torch.zeros(num_labels))

    @torch.no_grad()
    def forward(
        self, features: Tensor, labels: Tensor, update: bool = True, learn_from: Tensor | None = None
    ) -> Tensor:
        """Predict a batch, then learn from it: each prediction is made before its label has been seen.

        Args:
            features: (n, d).
            labels: (n,), of the images they were made from.
            update: whether to learn.
            learn_from: bool (n,), the images to learn from; by default all.

        Returns:
            u_z, (n, C), with zero mean over the classes.
        """
        features = at_least_float32(features)
        if update:
            share = (1 / (1 + self.num_updates)).clamp(min=0.1)
            (centre,) = all_reduce_mean([features.mean(0)])
            self.mean.lerp_(centre, share)
            self.num_updates += 1
        # of one length, so that one learning rate suits every backbone
        inputs = FEATURE_NORM * F.normalize(features - self.mean, dim=-1)
        logits = inputs @ self.weight.T + self.bias
        if update:
            count = len(labels) if learn_from is None else learn_from.sum().clamp(min=1)
            probabilities = logits.softmax(-1)
            error = (probabilities - F.one_hot(labels, logits.shape[-1])) / count
            if self.q:
                error = error * probabilities.gather(1, labels[:, None]) ** self.q
            if learn_from is not None:
                error = error * learn_from[:, None]
            weight_gradient, bias_gradient = all_reduce_mean([error.T @ inputs, error.sum(0)])
            self.weight -= self.learning_rate * weight_gradient
            self.bias -= self.learning_rate * bias_gradient
        return logits - logits.mean(-1, keepdim=True)


class ProbeEvidence(Evidence):
    """What the evidence of an `OnlineProbe` has in common.

    Args:
        probe: learns along.
    """

    def __init__(self, probe: OnlineProbe):
        self.probe = probe

    def to(self, device: torch.device | str, dtype: torch.dtype) -> "ProbeEvidence":
        """As of `Evidence`."""
        self.probe.to(device, dtype)
        return self

    def state_dict(self) -> dict[str, Any]:
        """Of the probe."""
        return self.probe.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Of the probe."""
        self.probe.load_state_dict(state)
