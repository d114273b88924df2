"""RandAugment of torchvision, for images and their masks."""

import torch
from torch import Tensor
from torchvision.transforms import v2

GEOMETRIC = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")


class RandAugment(v2.RandAugment):
    """Two random operations on every image, of 14 kinds, at magnitude 9 of 30 (Cubuk et al. 2020, "RandAugment",
    section 4.3, as on ImageNet).

    Operations, magnitudes and draws are torchvision's. A mask is moved where its image is, and nothing else.
    """

    def images(
        self, images: Tensor, masks: Tensor | None = None, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Augment a batch.

        Args:
            images: (n, 3, h, w) uint8.
            masks: (n, 1, h, w) uint8 or None.
            generator: source of the random numbers; the global one by default.
        """
        if generator is not None:
            seed = int(torch.randint(2**62, (), generator=generator))
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                return self.images(images, masks)
        augmented, moved = [], []
        for index, image in enumerate(images):
            self._mask = None if masks is None else masks[index]
            augmented.append(self(image))
            moved.append(self._mask)
        return torch.stack(augmented), None if masks is None else torch.stack(moved)

    def _apply_image_or_video_transform(self, image, transform_id, magnitude, *args, **kwargs):
        operation = super()._apply_image_or_video_transform
        if self._mask is not None and transform_id in GEOMETRIC:
            self._mask = operation(self._mask, transform_id, magnitude, *args, **kwargs)
        return operation(image, transform_id, magnitude, *args, **kwargs)
