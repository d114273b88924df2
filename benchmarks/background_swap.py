"""Masks as data augmentation, what CLP has to be better than: the background of an image of another class."""

import torch

from clp_hf.causal import CausalAugmentation, Role
from clp_hf.data import ImageClassificationDataset
from clp_hf.experiment import Experiment


class BackgroundSwap(ImageClassificationDataset):
    """Training images half of which stand before the background of an image of another class in the batch."""

    @classmethod
    def of(cls, experiment: Experiment) -> "BackgroundSwap":
        dataset = cls(experiment.splits["train"], experiment.train.transform, name="train")
        transform = dataset.transform
        dataset.augmentation = CausalAugmentation(
            [], ["mix_rand"], transform.mean.flatten(), transform.std.flatten(), factual_mask_shape="exact"
        )
        return dataset

    def __getitems__(self, indices):
        items = super().__getitems__(indices)
        if len(items) == 1:  # looked at alone, before training
            return items
        batch = {name: torch.stack([torch.as_tensor(item[name]) for item in items]) for name in items[0]}
        role = torch.where(torch.rand(len(items)) < 0.5, int(Role.FACTUAL), int(Role.ORIGINAL))
        role = self.augmentation.effective_role(role, batch["mask"])
        generator = torch.Generator().manual_seed(int(torch.randint(2**62, ())))
        batch["pixel_values"] = self.augmentation(
            batch["pixel_values"], batch["labels"], batch["mask"], role, generator=generator
        )
        return [item | {"pixel_values": pixels} for item, pixels in zip(items, batch["pixel_values"], strict=True)]
