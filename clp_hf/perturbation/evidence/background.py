"""The extrinsic logits u_z of the causal graph (CLP, Fig. 2): what the background alone says about the label."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from ...bilevel.distributed import all_reduce_mean
from ...causal import CausalAugmentation, Role
from ...utils.precision import at_least_float32
from .base import Evidence

FEATURE_NORM = 5.0


class BackgroundProbe(nn.Module):
    """Softmax regression of the label on the classifier's own features of images whose foreground is removed.

    It is trained online, one plain gradient step a batch, and never passes a gradient on. Where the place predicts the
    class, as in a biased training set, its logits say how strongly; they are the u_z on which CLP means to intervene.
    Our extension: the paper leaves u_z implicit.

    Args:
        num_features: d, of the classifier's penultimate features.
        num_labels: C.
        learning_rate: of the online steps.
    """

    def __init__(self, num_features: int, num_labels: int, learning_rate: float = 0.2):
        super().__init__()
        self.learning_rate = learning_rate
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
            features: (n, d), of background images.
            labels: (n,), of the images they were made from.
            update: whether to learn.
            learn_from: bool (n,), the images to learn from; by default all.

        Returns:
            u_z, (n, C), with zero mean over the classes.
        """
        features = at_least_float32(features)
        if update:
            share = max(0.1, 1 / (1 + self.num_updates.item()))
            (centre,) = all_reduce_mean([features.mean(0)])
            self.mean.lerp_(centre, share)
            self.num_updates += 1
        # of one length, so that one learning rate suits every backbone
        inputs = FEATURE_NORM * F.normalize(features - self.mean, dim=-1)
        logits = inputs @ self.weight.T + self.bias
        if update:
            count = len(labels) if learn_from is None else learn_from.sum().clamp(min=1)
            error = (logits.softmax(-1) - F.one_hot(labels, logits.shape[-1])) / count
            if learn_from is not None:
                error = error * learn_from[:, None]
            weight_gradient, bias_gradient = all_reduce_mean([error.T @ inputs, error.sum(0)])
            self.weight -= self.learning_rate * weight_gradient
            self.bias -= self.learning_rate * bias_gradient
        return logits - logits.mean(-1, keepdim=True)


class BackgroundEvidence(Evidence):
    """u_z of the background: a `BackgroundProbe` on the batch's images without their foreground.

    Args:
        probe: learns along.
        augmentation: takes the foreground out; it has counterfactual infills.
        generator: of its random fillings.
    """

    SETTING = "background_evidence"
    STATE = "background_probe"

    def __init__(self, probe: BackgroundProbe, augmentation: CausalAugmentation, generator: Generator):
        self.probe, self.augmentation, self.generator = probe, augmentation, generator

    @classmethod
    def of(
        cls, num_features: int, num_labels: int, augmentation: CausalAugmentation, generator: Generator
    ) -> "BackgroundEvidence":
        """As of `Evidence`."""
        return cls(BackgroundProbe(num_features, num_labels), augmentation, generator)

    def __call__(self, batch: Mapping[str, Any], features_of: Callable[[Tensor], Tensor]) -> Tensor:
        """As of `Evidence`; 0 for images that cannot be masked.

        Of images before another background it is that background's, and nothing is learned: their labels would tell
        that backgrounds say nothing.
        """
        pixel_values, role = self.augmentation(
            batch["pixel_values"],
            batch["labels"],
            batch["mask"],
            torch.full_like(batch["labels"], Role.COUNTERFACTUAL),
            generator=self.generator,
        )
        own = ~batch["swapped"] if "swapped" in batch else None
        logits = self.probe(features_of(pixel_values), batch["labels"], learn_from=own)
        return logits * (role == Role.COUNTERFACTUAL)[:, None]

    def to(self, device: torch.device | str, dtype: torch.dtype) -> "BackgroundEvidence":
        """As of `Evidence`."""
        self.probe.to(device, dtype)
        return self

    def state_dict(self) -> dict[str, Any]:
        """Of the probe."""
        return self.probe.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Of the probe."""
        self.probe.load_state_dict(state)
