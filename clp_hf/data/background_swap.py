"""Masks as data augmentation: training images before the background of an image of another class."""

from collections.abc import Sequence

import torch

from ..causal import CausalAugmentation, Role
from .dataset import ImageClassificationDataset


class BackgroundSwap(ImageClassificationDataset):
    """Training images half of which stand before the background of an image of another class in the batch.

    It is the `mix_rand` infill on the training set, with exact masks, and needs nothing meta-learned.

    Args:
        dataset, transform, **kwargs: as for `ImageClassificationDataset`; with masks or boxes.
    """

    def __init__(self, dataset, transform, **kwargs):
        super().__init__(dataset, transform, **kwargs)
        self.augmentation = CausalAugmentation(
            [], ["mix_rand"], transform.mean.flatten(), transform.std.flatten(), factual_mask_shape="exact"
        )

    def __getitems__(self, indices: Sequence[int]) -> list[dict]:
        """The items of a batch, half of their backgrounds swapped; an image alone stays as it is."""
        items = super().__getitems__(indices)
        if len(items) == 1:  # looked at alone, before training
            return items
        batch = {name: torch.stack([torch.as_tensor(item[name]) for item in items]) for name in items[0]}
        role = torch.where(torch.rand(len(items)) < 0.5, int(Role.FACTUAL), int(Role.ORIGINAL))
        generator = torch.Generator().manual_seed(int(torch.randint(2**62, ())))
        swapped, _ = self.augmentation(batch["pixel_values"], batch["labels"], batch["mask"], role, generator=generator)
        return [item | {"pixel_values": pixels} for item, pixels in zip(items, swapped, strict=True)]
