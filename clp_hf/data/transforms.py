"""Batched image transforms in torch, the same geometry for an image and its mask.

One rule of resizing and cropping: a classifier is evaluated on what its image processor makes of an image
(`ProcessorTransform`), since that is what `pipeline`, timm, Grad-CAM and the demo feed it. The recipes train on random
crops of the whole image, squeezed to the model's size, and publish a processor that squeezes alike
(`clp_hf.modeling.squash_bilinearly`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from .rand_augment import RandAugment

if TYPE_CHECKING:
    from transformers import BaseImageProcessor

    from ..modeling.preprocessing import ImageSettings


class TrainTransform:
    """Random resized crop and random horizontal flip, drawn per sample and applied to the whole batch at once.

    A crop covers a fraction `scale` of the area with an aspect ratio (width / height) in `ratio`; `scale=(1, 1)` with
    `ratio=(1, 1)` keeps the whole image. Images and masks are sampled bilinearly at the same points, without
    antialiasing: the input should be little larger than the output, as `ImageClassificationDataset` stores it.

    Args:
        size: (height, width) of the output.
        mean, std: the model's normalisation, per channel, for images in [0, 1].
        scale, ratio: ranges of the crop's area fraction (0 < scale <= 1) and aspect ratio.
        flip: probability of the horizontal flip.
        rand_augment: whether `RandAugment` comes first.
    """

    def __init__(
        self, size, mean, std, scale=(0.7, 1.0), ratio=(3 / 4, 4 / 3), flip: float = 0.5, rand_augment: bool = False
    ):
        if not 0 < scale[0] <= scale[1] <= 1 or not 0 < ratio[0] <= ratio[1] or not 0 <= flip <= 1:
            raise ValueError(
                f"Expected 0 < scale[0] <= scale[1] <= 1, 0 < ratio[0] <= ratio[1] and flip in [0, 1], "
                f"got scale={scale}, ratio={ratio}, flip={flip}."
            )
        self.size, self.scale, self.ratio, self.flip = _pair(size), scale, ratio, flip
        self.rand_augment = rand_augment
        self.mean, self.std = _per_channel(mean), _per_channel(std)

    def __call__(self, images: Tensor, masks: Tensor | None = None, generator: torch.Generator | None = None):
        """Transform a batch.

        Args:
            images: (n, 3, h, w) uint8.
            masks: (n, 1, h, w) uint8 or None.
            generator: source of the random numbers; the global one by default (seeded per worker by the `DataLoader`).

        Returns:
            `(pixel_values (n, 3, *size) float32 normalised, masks (n, 1, *size) float32 in [0, 1] or None)`.
        """
        if self.rand_augment:
            images, masks = RandAugment().images(images, masks, generator)
        together = (images if masks is None else torch.cat([images, masks], 1)).float().div_(255)
        grid = self._grid(images, generator)
        together = F.grid_sample(together, grid, mode="bilinear", padding_mode="border", align_corners=False)
        return (together[:, :3] - self.mean).div_(self.std), None if masks is None else together[:, 3:]

    def _grid(self, images: Tensor, generator) -> Tensor:
        n, _, height, width = images.shape
        uniform = torch.rand(5, n, generator=generator)
        area = self.scale[0] + (self.scale[1] - self.scale[0]) * uniform[0]
        low, high = (torch.tensor(value).log() for value in self.ratio)
        # Crop sides as fractions of the image; a side that would not fit is the whole side.
        aspect = torch.exp(low + (high - low) * uniform[1]) * height / width
        crop_width, crop_height = (area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1)
        left, top = uniform[2] * (1 - crop_width), uniform[3] * (1 - crop_height)
        x = left[:, None] + crop_width[:, None] * _pixel_centres(self.size[1])  # (n, W) in [0, 1]
        y = top[:, None] + crop_height[:, None] * _pixel_centres(self.size[0])
        x = torch.where(uniform[4, :, None] < self.flip, x.flip(1), x)
        shape = (n, *self.size)
        return torch.stack([x[:, None, :].expand(shape), y[:, :, None].expand(shape)], -1).mul_(2).sub_(1)


class PaddedCropTransform:
    """Random crop out of the image with a black margin, and random horizontal flip: the usual augmentation of CIFAR.

    Drawn per sample, applied to the whole batch at once; images of another size than the output's are squeezed to it
    first, antialiased, so that objects are as large as when the classifier is evaluated.

    Args:
        size: (height, width) of the output.
        mean, std: the model's normalisation, per channel, for images in [0, 1].
        padding: pixels of the output in the margin on every side, at least 0.
        flip: probability of the horizontal flip.
        rand_augment: whether `RandAugment` comes first.
    """

    def __init__(self, size, mean, std, padding: int = 4, flip: float = 0.5, rand_augment: bool = False):
        if padding < 0 or not 0 <= flip <= 1:
            raise ValueError(f"Expected padding >= 0 and flip in [0, 1], got padding={padding}, flip={flip}.")
        self.size, self.padding, self.flip = _pair(size), padding, flip
        self.rand_augment = rand_augment
        self.mean, self.std = _per_channel(mean), _per_channel(std)

    def __call__(self, images: Tensor, masks: Tensor | None = None, generator: torch.Generator | None = None):
        """Transform a batch; arguments and results as `TrainTransform`."""
        if self.rand_augment:
            images, masks = RandAugment().images(images, masks, generator)
        together = images if masks is None else torch.cat([images, masks], 1)
        if together.shape[2:] != self.size:
            together = F.interpolate(together, self.size, mode="bilinear", antialias=True, align_corners=False)
        padded = F.pad(together, [self.padding] * 4)
        windows = padded.unfold(2, self.size[0], 1).unfold(3, self.size[1], 1)  # (n, c, rows, columns, *size), a view
        n, _, rows, columns = windows.shape[:4]
        row, column = (torch.randint(count, (n,), generator=generator) for count in (rows, columns))
        cropped = windows[torch.arange(n), :, row, column]
        flipped = torch.rand(n, generator=generator) < self.flip
        cropped[flipped] = cropped[flipped].flip(-1)
        cropped = cropped.float().div_(255)
        return (cropped[:, :3] - self.mean).div_(self.std), None if masks is None else cropped[:, 3:]


class EvalTransform:
    """Deterministic: antialiased resize and centre crop of `crop_pct` of the shorter side (as timm), then normalise.

    `crop_pct=1` with equal aspect ratios is a plain resize. Arguments and results as `TrainTransform`. What is
    evaluated before it is published has a `ProcessorTransform` instead: an `ImageClassificationDataset` squeezes images
    of other aspect ratios before this transform sees them, and few processors do.
    """

    def __init__(self, size, mean, std, crop_pct: float = 1.0):
        if not 0 < crop_pct <= 1:
            raise ValueError(f"crop_pct must be in (0, 1], got {crop_pct}.")
        self.size, self.crop_pct = _pair(size), crop_pct
        self.mean, self.std = _per_channel(mean), _per_channel(std)

    def __call__(self, images: Tensor, masks: Tensor | None = None, generator: torch.Generator | None = None):
        """Transform a batch; `generator` is not used."""
        (height, width), (out_height, out_width) = images.shape[-2:], self.size
        side = self.crop_pct * min(height / out_height, width / out_width)
        crop_height, crop_width = round(out_height * side), round(out_width * side)
        top, left = (height - crop_height) // 2, (width - crop_width) // 2
        together = images if masks is None else torch.cat([images, masks], 1)
        together = together[..., top : top + crop_height, left : left + crop_width]
        if (crop_height, crop_width) != self.size:
            together = F.interpolate(together, self.size, mode="bilinear", antialias=True, align_corners=False)
        together = together.float().div_(255)
        return (together[:, :3] - self.mean).div_(self.std), None if masks is None else together[:, 3:]


class ProcessorTransform:
    """Deterministic: what an image processor makes of an image, and `pipeline` or timm of a saved checkpoint with it.

    The processor itself resizes and crops (`resize`, called by `ImageClassificationDataset` for every image and mask),
    so this holds for every kind, those that squeeze and those that crop or pad.

    Args:
        processor: of `load_image_processor`.
        settings: `image_settings(model, processor)`.

    Attributes:
        size: (height, width) of the output.
        mean, std: the normalisation, (1, 3, 1, 1), for images in [0, 1].
    """

    def __init__(self, processor: BaseImageProcessor, settings: ImageSettings):
        self.processor, self.size = processor, (settings.height, settings.width)
        self.mean, self.std = _per_channel(settings.mean), _per_channel(settings.std)

    def resize(self, image: Image.Image) -> Tensor:
        """An RGB image (3, *size), or a mask of mode L (1, *size), as the processor resizes and crops it; uint8.

        Raises:
            ValueError: the processor gives images of other aspect ratios another size.
        """
        if image.mode == "L":
            nothing = Image.new("L", image.size)
            mask, padded = self.resize(Image.merge("RGB", (image, nothing, nothing)))[:2]
            return torch.where(padded > 0, 0, mask)[None]  # nothing becomes something where a processor pads
        pixels = self.processor(image, return_tensors="pt")["pixel_values"]
        if tuple(pixels.shape[2:]) != self.size:
            raise ValueError(
                f"{type(self.processor).__name__} makes {pixels.shape[2]} × {pixels.shape[3]} pixels of an image of "
                f"{image.height} × {image.width} and {self.size[0]} × {self.size[1]} of a square one, but images of a "
                "batch are of one size. Publish the checkpoint with clp_hf.modeling.squash_bilinearly(processor, …)."
            )
        return (pixels * self.std + self.mean).mul_(255).round_().clamp_(0, 255).to(torch.uint8)[0]

    def __call__(self, images: Tensor, masks: Tensor | None = None, generator: torch.Generator | None = None):
        """Normalise a batch of what `resize` returns; results as `TrainTransform`, `generator` is not used."""
        pixel_values = (images.float().div_(255) - self.mean).div_(self.std)
        return pixel_values, None if masks is None else masks.float().div_(255)


def _pixel_centres(n: int) -> Tensor:
    return (torch.arange(n) + 0.5) / n


def _per_channel(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1)


def _pair(size) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
