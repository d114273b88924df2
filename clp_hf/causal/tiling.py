"""Where the pixels of an infill are taken from, in the image itself."""

import torch
from torch import Tensor


def mirrored(offset: Tensor, period: Tensor) -> Tensor:
    """Fold offsets into [0, period): there and back again."""
    phase = offset % (2 * period)
    return torch.minimum(phase, 2 * period - 1 - phase)


def take_pixels(images: Tensor, index: Tensor) -> Tensor:
    """Pixel p of image i becomes pixel `index[i, p]` of it; `index` `(n, height · width)`."""
    return images.flatten(2).gather(2, index[:, None].expand(-1, images.shape[1], -1)).view_as(images)
