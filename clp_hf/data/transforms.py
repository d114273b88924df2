"""Batched image transforms in torch, the same geometry for an image and its mask."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


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
    """

    def __init__(self, size, mean, std, scale=(0.7, 1.0), ratio=(3 / 4, 4 / 3), flip: float = 0.5):
        if not 0 < scale[0] <= scale[1] <= 1 or not 0 < ratio[0] <= ratio[1] or not 0 <= flip <= 1:
            raise ValueError(
                f"Expected 0 < scale[0] <= scale[1] <= 1, 0 < ratio[0] <= ratio[1] and flip in [0, 1], "
                f"got scale={scale}, ratio={ratio}, flip={flip}."
            )
        self.size, self.scale, self.ratio, self.flip = _pair(size), scale, ratio, flip
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

    Drawn per sample, applied to the whole batch at once, without interpolation.

    Args:
        size: (height, width) of the output; images must be at least so large with their margin.
        mean, std: the model's normalisation, per channel, for images in [0, 1].
        padding: pixels of the margin on every side, at least 0.
        flip: probability of the horizontal flip.
    """

    def __init__(self, size, mean, std, padding: int = 4, flip: float = 0.5):
        if padding < 0 or not 0 <= flip <= 1:
            raise ValueError(f"Expected padding >= 0 and flip in [0, 1], got padding={padding}, flip={flip}.")
        self.size, self.padding, self.flip = _pair(size), padding, flip
        self.mean, self.std = _per_channel(mean), _per_channel(std)

    def __call__(self, images: Tensor, masks: Tensor | None = None, generator: torch.Generator | None = None):
        """Transform a batch; arguments and results as `TrainTransform`."""
        together = images if masks is None else torch.cat([images, masks], 1)
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

    `crop_pct=1` with equal aspect ratios is a plain resize. Arguments and results as `TrainTransform`.
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


def _pixel_centres(n: int) -> Tensor:
    return (torch.arange(n) + 0.5) / n


def _per_channel(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1)


def _pair(size) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
