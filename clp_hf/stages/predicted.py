"""Groups (class, what a network takes the image for): its mistakes tell the attribute that it goes by."""

from __future__ import annotations

import torch
from torch import Tensor

from .base import Reference


def predicted_groups(reference: Reference, what: str) -> tuple[Tensor, str]:
    """Group = class · C + predicted class.

    Args:
        reference: of a network that has learned the shortcut.
        what: is learned from its mistakes, for the message.

    Returns:
        (n,) int64, and how many mistakes there are, in words.

    Raises:
        ValueError: the network was wrong nowhere.
    """
    train = reference.train
    predicted = train.logits.argmax(1)
    wrong = predicted != train.labels
    if not wrong.any():
        raise ValueError(
            f"{what} learns from the mistakes of its first network, and that one is right about all {len(train)} "
            "training images. Stop it earlier: --stage_options '{\"first_share\": 0.05}'."
        )
    per_class = torch.bincount(train.labels[wrong], minlength=train.num_classes).tolist()
    told = ", ".join(f"{name} {number}" for name, number in zip(reference.label_names, per_class, strict=True))
    return train.labels * train.num_classes + predicted, f"{int(wrong.sum())} of {len(train)} training images ({told})"
