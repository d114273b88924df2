"""What the training losses share: their interface, and the refusal of bad options."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..bilevel.distributed import of_joint_rows
from ..utils.options import require


class Outputs(NamedTuple):
    """What a classifier says of a batch, in float32 or float64.

    Attributes:
        logits: (n, C); cosines for a loss that takes them.
        features: (n, d), what the final linear layer takes; None for a loss that does not take them.
        weight: (C, d) of that layer, with its graph; None alike.
    """

    logits: Tensor
    features: Tensor | None = None
    weight: Tensor | None = None

    def joined(self) -> Tensor:
        """All of them in one vector, for who differentiates through all."""
        return torch.cat([part.flatten() for part in self])

    def parted(self, joined: Tensor) -> "Outputs":
        """Of another such vector, the parts, as large as these."""
        parts = joined.split([part.numel() for part in self])
        return Outputs(*(part.view_as(own) for part, own in zip(parts, self, strict=True)))


class TrainingLoss(nn.Module):
    """A loss that stands in place of the cross-entropy while training; evaluation keeps the cross-entropy.

    A constructor takes what it needs to know of the training set, by name: `class_counts`, the number of images of
    every class (C,); `group_counts`, of every group (G,); `cell_counts`, of every class and group (C, G); of the
    classifier: `num_features`, d, for a loss that takes features; `noise_rate`, the share of the labels that are known
    to be wrong, or None; or of a first stage: `corruption`, (C, C), what it has learned of the labels. Its other
    arguments are options: numbers, with the published defaults. What moves during training is held in buffers, which
    are saved and resumed.

    Attributes:
        takes_cosines: whether its logits are cosines of the features with the head's rows. The trainer then keeps these
            rows at unit length and the bias at zero, so that the checkpoint is an ordinary classifier all the same.
        takes_features: whether `forward` takes the features (n, d) behind the groups, and then the head's weight
            (C, d), unless it is `of_joint_batch`.
        of_joint_batch: whether it is no mean over images, and is therefore given the batches of all processes, joined.
            Under gradient accumulation it is that of every micro-batch.
        progress: the share of the training that is done, in [0, 1); the trainer sets it before every batch.
    """

    takes_cosines = False
    takes_features = False
    of_joint_batch = False
    progress = 0.0

    def forward(self, logits: Tensor, labels: Tensor, groups: Tensor | None = None) -> Tensor:
        """The loss of a batch.

        Args:
            logits: (n, C), float32 or float64.
            labels: (n,) integers.
            groups: (n,) integers; needed by the losses that take counts of groups.

        Returns:
            A scalar, the mean over the batch.
        """
        raise NotImplementedError

    def of_batch(self, classify: Callable[[Tensor], Outputs], batch: Mapping[str, Any]) -> Tensor:
        """The same from the images, for a loss that changes them first.

        Args:
            classify: the classifier, of images (n, 3, H, W).
            batch: `pixel_values`, `labels` and, where there are any, `group`.
        """
        outputs = classify(batch["pixel_values"])
        rows = [outputs.logits, batch["labels"], batch.get("group")]
        if self.takes_features:
            rows.append(outputs.features)
        if self.of_joint_batch:
            return of_joint_rows(self, *rows)
        return self(*rows, outputs.weight) if self.takes_features else self(*rows)


def checked_class_counts(class_counts: Tensor) -> Tensor:
    """The counts (C,), in float64, of classes that all have training images.

    Raises:
        ValueError: a class has none: its weight, margin or prior would be infinite.
    """
    counts = torch.as_tensor(class_counts, dtype=torch.float64)
    if empty := (counts <= 0).nonzero()[:, 0].tolist():
        raise ValueError(f"Classes {empty} have no training image; drop them, or load the model with fewer num_labels.")
    return counts


def most_frequent(class_counts: Tensor, share: float) -> Tensor:
    """Which classes (C,) are among the `share` of all that have the most images.

    Raises:
        ValueError: `share` is not in [0, 1].
    """
    require(0 <= share <= 1, "head_share", share, "a share of the classes, in [0, 1]")
    return class_counts.argsort(descending=True, stable=True).argsort() < round(share * len(class_counts))
