"""MetaSAug: covariances of the classes' features, corrected by a meta set, along which features are augmented."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ..losses import Outputs, effective_number_weights
from ..losses.class_moments import ClassMoments
from .of_batch import BatchHyperparameters


class SemanticDirections(BatchHyperparameters):
    """Meta semantic augmentation (Li et al. 2021, "MetaSAug: meta semantic augmentation for long-tailed visual
    recognition", Eq. 4 to 8 and Algorithm 1).

    The training loss is that of `losses.isda.ISDA`, of the logits u_j + λ/2 t/T (w_j − w_y)ᵀ Σ_y (w_j − w_y), every
    sample weighted by the effective number of its class. Of a rare class Σ_y is poorly known: in every step it goes
    from the estimate one step −γ ∂L_meta/∂Σ, L_meta one step ahead, and the classifier is trained with that. The next
    batch starts from the estimate again, as in the published program. Published, on CIFAR: λ = 0.25 to 1, γ = 0.1,
    after 160 of 200 epochs of cross-entropy.

    The hypergradient is exact: Σ reaches the loss by the logits and by the rows w of the head; it goes through both.

    Args:
        class_counts: (C,), images of every class.
        num_features: d.
        rate: γ, 0 or more; `perturbation_learning_rate` of the settings.
        strength: λ, 0 or more.

    Attributes:
        moments: the estimate of Σ, over the joint batches so far.
    """

    NAME = "covariance"
    CARD = "meta-saug"
    LEVEL = "variance of a feature"
    TITLE = "Augmentation by {}"
    CAPTION = "Mean variance, over the features, by which samples of the class are augmented."
    characteristics = ("loss",)
    takes_features = True

    def __init__(self, class_counts: Tensor, num_features: int, rate: float = 0.1, strength: float = 0.25):
        super().__init__()
        self.config = {"num_features": num_features, "rate": rate, "strength": strength}
        self.rate, self.strength = rate, strength
        self.moments = ClassMoments(len(class_counts), num_features)
        self.register_buffer("weights", effective_number_weights(class_counts, 0.9999))

    @classmethod
    def of(
        cls, settings: Any, num_labels: int, class_proportions: Tensor, class_counts: Tensor, num_features: int
    ) -> SemanticDirections:
        """As of `MetaNetwork`."""
        return cls(class_counts, num_features, settings.perturbation_learning_rate)

    def begin_batch(self, characteristics: Tensor, labels: Tensor) -> None:
        """As of `MetaNetwork`; the features are behind the characteristics."""
        super().begin_batch(characteristics, labels)
        self.moments.update(characteristics[:, len(self.characteristics) :], labels)

    def start(self, labels: Tensor) -> Tensor:
        """The estimate of Σ, (C, d, d) or its diagonals (C, d)."""
        return self.moments.covariances.clone()

    def stepped(self, gradient: Tensor, derivative: Callable[[], Tensor]) -> Tensor:
        """As of `BatchHyperparameters`."""
        return self.omega.detach() - self.rate * gradient

    def _augmented(self, outputs: Outputs, output: Tensor, labels: Tensor) -> Tensor:
        classes, place = labels.unique(return_inverse=True)
        spreads = self.moments.spreads(outputs.weight, classes, output[classes])
        return outputs.logits + self.strength * self.progress / 2 * spreads[place]

    def training_loss(self, logits: Outputs, output: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """As of `MetaNetwork`."""
        augmented = self._augmented(logits, output, labels)
        losses = F.cross_entropy(augmented, labels, reduction="none", label_smoothing=label_smoothing)
        return (self.weights[labels] * losses).mean()

    def level(self, output: Tensor, labels: Tensor) -> Tensor:
        """The mean of the diagonal of Σ_y."""
        return (output.diagonal(dim1=-2, dim2=-1) if self.moments.full else output).mean(-1)[labels]

    def raises_loss(self, logits: Outputs, output: Tensor, labels: Tensor) -> Tensor:
        """Whether the cross-entropy of the augmented logits is above that of the logits."""
        augmented = F.cross_entropy(self._augmented(logits, output, labels), labels, reduction="none")
        return augmented > F.cross_entropy(logits.logits, labels, reduction="none")
