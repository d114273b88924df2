"""What the training losses share: their interface, and the refusal of bad options."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn


class TrainingLoss(nn.Module):
    """A loss that stands in place of the cross-entropy while training; evaluation keeps the cross-entropy.

    A constructor takes what it needs to know of the training set, by name: `class_counts`, the number of images of
    every class (C,); `group_counts`, of every group (G,); `cell_counts`, of every class and group (C, G); or
    `corruption`, (C, C), what a first stage has learned of its labels. Its other
    arguments are options: numbers, with the published defaults. What moves during training is held in buffers, which
    are saved and resumed.

    Attributes:
        takes_cosines: whether its logits are cosines of the features with the head's rows. The trainer then keeps these
            rows at unit length and the bias at zero, so that the checkpoint is an ordinary classifier all the same.
        progress: the share of the training that is done, in [0, 1); the trainer sets it before every batch.
    """

    takes_cosines = False
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

    def of_batch(self, logits_of: Callable[[Tensor], Tensor], batch: Mapping[str, Any]) -> Tensor:
        """The same from the images, for a loss that changes them first.

        Args:
            logits_of: the classifier, from images (n, 3, H, W) to logits (n, C).
            batch: `pixel_values`, `labels` and, where there are any, `group`.
        """
        return self(logits_of(batch["pixel_values"]), batch["labels"], batch.get("group"))


def require(condition: bool, name: str, value: float, expected: str) -> None:
    """Refuse the value of an option.

    Raises:
        ValueError: where `condition` does not hold.
    """
    if not condition:
        raise ValueError(f"{name} is {value}; expected {expected}.")


def checked_class_counts(class_counts: Tensor) -> Tensor:
    """The counts (C,), in float64, of classes that all have training images.

    Raises:
        ValueError: a class has none: its weight, margin or prior would be infinite.
    """
    counts = torch.as_tensor(class_counts, dtype=torch.float64)
    if empty := (counts <= 0).nonzero()[:, 0].tolist():
        raise ValueError(f"Classes {empty} have no training image; drop them, or load the model with fewer num_labels.")
    return counts
