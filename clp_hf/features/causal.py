"""Features of images as they are, of their backgrounds alone, and of their objects before other backgrounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, default_collate
from transformers import TrainingArguments

from ..causal import CausalAugmentation, Role
from .extraction import data_fingerprint, extract_features
from .feature_set import FeatureSet

DONORS = 64  # images that a batch may take backgrounds from, beside its own


@dataclass(frozen=True)
class CausalFeatures:
    """Of a data set of n images; what needs masks is None where there are none.

    Attributes:
        images: as evaluation sees them, with labels and groups.
        maskable: bool (n,), whether the mask has foreground and background; other images are as they were in the rest.
        background: (n, d), the foreground replaced by tiles of the background.
        swapped: (k, n, d), the foreground before the background of an image of another class, k draws.
    """

    images: FeatureSet
    maskable: Tensor | None = None
    background: Tensor | None = None
    swapped: Tensor | None = None

    def __len__(self) -> int:
        return len(self.images)

    @property
    def labels(self) -> Tensor:
        """(n,)."""
        return self.images.labels

    def __getitem__(self, index: Tensor) -> CausalFeatures:
        """The images at `index`, a tensor of indices or of bools."""
        return CausalFeatures(
            self.images[index],
            None if self.maskable is None else self.maskable[index],
            None if self.background is None else self.background[index],
            None if self.swapped is None else self.swapped[:, index],
        )


class CausalImages(Dataset):
    """The images of a data set in one role, a batch at a time; donors are of the whole set, others for every `draw`.

    Args:
        images: map-style, of items with `pixel_values`, `labels` and `mask`.
        augmentation: makes them; without infills that need a classifier.
        role: `Role.COUNTERFACTUAL` or `Role.FACTUAL`.
        draw: of the donors and fillings.
    """

    def __init__(self, images: Dataset, augmentation: CausalAugmentation, role: Role, draw: int = 0):
        self.images, self.augmentation, self.role, self.draw = images, augmentation, role, draw

    def __len__(self) -> int:
        return len(self.images)

    def _items(self, indices: Sequence[int]) -> list[dict]:
        if hasattr(self.images, "__getitems__"):
            return self.images.__getitems__(list(indices))
        return [self.images[index] for index in indices]

    def __getitem__(self, index: int) -> dict:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict]:
        generator = torch.Generator().manual_seed(self.draw * len(self) + indices[0])
        items = self._items(indices)
        donors = self._items(torch.randint(len(self), (DONORS,), generator=generator).tolist())
        batch, donors = default_collate(items), default_collate(donors)
        parts = (batch["pixel_values"], batch["labels"], batch["mask"], torch.full_like(batch["labels"], self.role))
        pixels, _ = self.augmentation(*parts, generator=generator, donors=donors)
        return [item | {"pixel_values": image} for item, image in zip(items, pixels, strict=True)]

    @property
    def fingerprint(self) -> str:
        """Differs where the images or what is made of them do."""
        infills, shape = list(self.augmentation.infills[self.role]), self.augmentation.mask_shapes[self.role]
        inpainter = getattr(self.augmentation.inpainter, "name", None)
        return f"{data_fingerprint(self.images)} {self.role.name} {infills} {inpainter} {shape} {self.draw}"


def extract_causal_features(
    model: nn.Module,
    dataset: Dataset,
    args: TrainingArguments,
    augmentation: CausalAugmentation | None,
    maskable: Tensor | None,
    copies: int = 2,
    cache_dir: str | None = None,
    data_collator: Callable | None = None,
) -> CausalFeatures:
    """Features of a data set and, with an `augmentation`, of its backgrounds and of `copies` draws of swapped ones.

    Args:
        model, args, cache_dir, data_collator: as for `extract_features`.
        dataset: map-style, with evaluation transforms; with masks where there is an augmentation.
        augmentation: with one counterfactual and one factual infill; None where there are no masks.
        maskable: bool (n,), which masks are of use.
        copies: k; 0 for none.
    """

    def extract(images: Dataset) -> FeatureSet:
        return extract_features(model, images, args, cache_dir, data_collator)

    found = extract(dataset)
    if augmentation is None:
        return CausalFeatures(found)
    background = extract(CausalImages(dataset, augmentation, Role.COUNTERFACTUAL)).features
    swapped = [extract(CausalImages(dataset, augmentation, Role.FACTUAL, draw)).features for draw in range(copies)]
    return CausalFeatures(found, maskable, background, torch.stack(swapped) if swapped else None)
