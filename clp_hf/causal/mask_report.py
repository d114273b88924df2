"""Which images of a set have a mask that causal augmentation can use."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from .masks import maskable, prepare_masks


class MaskReport(NamedTuple):
    """What `check_masks` found; `str(report)` is a sentence for the user."""

    maskable: Tensor
    num_empty: int
    num_full: int

    def __str__(self) -> str:
        unmaskable = self.num_empty + self.num_full
        return (
            f"{unmaskable} of {len(self.maskable)} masks allow no causal augmentation: {self.num_empty} are empty, "
            f"{self.num_full} cover the whole image."
        )


def check_masks(masks: Iterable[Tensor], shape: str = "box") -> MaskReport:
    """Which images of a set can be augmented.

    Args:
        masks: one mask `(1, height, width)` in [0, 1] per image; the images may differ in size.
        shape: of the masks that infills will use, `"box"` or `"exact"`.

    Returns:
        `maskable`, bool `(n,)`, and the numbers of empty masks and of masks that leave no background.

    Raises:
        ValueError: a mask holds NaN or values outside [0, 1] (names its index).
    """
    usable, full = [], 0
    for index, mask in enumerate(masks):
        low, high = mask.min().item(), mask.max().item()
        if not 0 <= low <= high <= 1:  # false for NaN too
            raise ValueError(
                f"Mask {index} has values from {low:g} to {high:g}, expected [0, 1] with 1 = foreground; scale it."
            )
        prepared = prepare_masks(mask[None], shape)
        usable.append(bool(maskable(prepared)))
        full += bool(prepared.all())
    return MaskReport(torch.tensor(usable, dtype=torch.bool), usable.count(False) - full, full)
