"""Infills for what lies about the object itself: its colour, its texture or its shape (section 5 of the CLP paper).

They are called like the others (`infills.py`), with the `foreground` beside the region: the object itself, binary,
where the region may be a box around it. Of a counterfactual image the region shows the colour, texture or shape of the
object, and no object; of a factual image it shows the object with another one, and the background stays.

The paper names the idea and no formula ("counterfactual images that showcase the blue color but with inaccurate
foreground", "factual images with random colors but accurate foreground"): how it is done here is ours.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from .draws import random_clouds, random_normal, random_uniform
from .tiling import mirrored, take_pixels

FINEST_FORM = 12  # parts of an image's shorter side: what is smaller is texture
WARP = 0.125  # of the image's sides, by which a point of the object moves at most
NOISE_SIGMA = 0.2
# Luminance and two axes of colour (YIQ, the NTSC's): grey pixels are at the origin of the latter two.
YIQ = ((0.299, 0.587, 0.114), (0.596, -0.274, -0.322), (0.211, -0.523, 0.312))


def own_colour(images: Tensor, region: Tensor, generator: Generator, *, foreground: Tensor) -> Tensor:
    """The mean colour of the object, and nothing else of it."""
    return _mean(images, foreground).expand_as(images)


def other_colour(images: Tensor, region: Tensor, generator: Generator, *, foreground: Tensor) -> Tensor:
    """The object in a random colour, uniform in the RGB cube, its hues turned by a random angle: see `recolour`."""
    number, device = len(images), images.device
    colour = random_uniform((number, 3), generator, device).to(images)
    angle = 2 * math.pi * random_uniform((number,), generator, device).to(images)
    return recolour(images, foreground, colour, angle)


def recolour(images: Tensor, foreground: Tensor, colour: Tensor, angle: Tensor | None = None) -> Tensor:
    """Give objects the colour of another colour, at the same luminance: their form and shading stay.

    The mean chroma of the object becomes that of `colour`, so that nothing is left of its own; around it pixels differ
    in chroma as before, turned by `angle`.

    Args:
        images: `(n, 3, height, width)` in [0, 1].
        foreground: `(n, 1, height, width)` binary, the object, whose own colour is taken away.
        colour: `(n, 3)` in [0, 1], RGB; its luminance has no part in it.
        angle: `(n,)`, radians; by default none.

    Returns:
        All of the images recoloured, in [0, 1].
    """
    axes = torch.tensor(YIQ, dtype=images.dtype, device=images.device)
    yiq = torch.einsum("ij,njhw->nihw", axes, images)
    luminance, chroma = yiq[:, :1], yiq[:, 1:]
    chroma = chroma - _mean(chroma, foreground)
    if angle is not None:
        cosine, sine = angle.cos(), angle.sin()
        turn = torch.stack([torch.stack([cosine, -sine], -1), torch.stack([sine, cosine], -1)], -2)
        chroma = torch.einsum("nij,njhw->nihw", turn, chroma)
    chroma = chroma + (colour @ axes[1:].T)[:, :, None, None]
    yiq = torch.cat([luminance, chroma], 1)
    return torch.einsum("ij,njhw->nihw", torch.linalg.inv(axes), yiq).clamp(0, 1)


def own_texture(images: Tensor, region: Tensor, generator: Generator, *, foreground: Tensor) -> Tensor:
    """A small patch of the object, tiled: its surface without its form.

    The patch is a random one of those with the most of the object in it; neighbouring tiles are mirror images.
    """
    side = _grain(images)
    inside = F.avg_pool2d(foreground, side, stride=1)
    rows, columns = inside.shape[2:]
    ties = random_uniform((len(images), rows * columns), generator, images.device) / (2 * side**2)  # below one pixel
    best = (inside.flatten(1) + ties).argmax(1, keepdim=True)
    top, left = best // columns, best % columns
    height, width = images.shape[2:]
    row = top + mirrored(torch.arange(height, device=images.device) - top, torch.full_like(top, side))
    column = left + mirrored(torch.arange(width, device=images.device) - left, torch.full_like(left, side))
    return take_pixels(images, (row[:, :, None] * width + column[:, None, :]).flatten(1))


def other_texture(images: Tensor, region: Tensor, generator: Generator, *, foreground: Tensor) -> Tensor:
    """The object with a random surface: stripes of random direction and width, and noise, in place of its fine detail.

    Detail is what a mean over a twelfth of the image's side leaves out; form, shading and colours stay. The new one is
    as strong as the old one is over the object.
    """
    number, device, side = len(images), images.device, _grain(images)
    coarse = _blurred(images, side)
    angle, phase, width = (random_uniform((number,), generator, device).to(images) for _ in range(3))
    wave = stripes(images, math.pi * angle, side * (0.5 + 1.5 * width), 2 * math.pi * phase)
    noise = random_normal(images.shape, generator, device).to(images)
    surface = wave + 0.5 * noise
    surface = surface - _blurred(surface, side)
    strength = _mean((images - coarse).square().mean(1, keepdim=True), foreground).sqrt()
    own = _mean(surface.square().mean(1, keepdim=True), foreground).sqrt()
    return (coarse + strength / own.clamp(min=1e-6) * surface).clamp(0, 1)


def stripes(images: Tensor, angle: Tensor, wavelength: Tensor, phase: Tensor | float = 0.0) -> Tensor:
    """Sine waves `(n, 1, height, width)` in [−1, 1].

    Args:
        images: `(n, channels, height, width)`, of that size.
        angle: `(n,)` radians; at 0 stripes are upright.
        wavelength: `(n,)` pixels.
        phase: `(n,)` radians.
    """
    rows, columns = (torch.arange(size, device=images.device, dtype=images.dtype) for size in images.shape[2:])
    angle, phase = angle[:, None, None], torch.as_tensor(phase, device=images.device).view(-1, 1, 1)
    along = angle.cos() * columns + angle.sin() * rows[:, None]
    return (2 * math.pi * along / wavelength[:, None, None] + phase).sin()[:, None]


def own_shape(images: Tensor, region: Tensor, generator: Generator, *, foreground: Tensor) -> Tensor:
    """The outline of the object, filled with noise; exact masks are needed to see it, a box is the shape of a box."""
    noise = random_clouds(images.shape, generator, images.device).to(images)
    noise = noise + NOISE_SIGMA * random_normal(images.shape, generator, images.device).to(images)
    return torch.where(foreground > 0, noise.clamp(0, 1), images)


def other_shape(images: Tensor, region: Tensor, generator: Generator, *, foreground: Tensor) -> Tensor:
    """The object bent at random: every point moves by up to an eighth of the image, neighbours alike.

    Towards the edge of the region the movement ends, so that the region goes over into the background without seam.
    """
    number, _, height, width = images.shape
    taper = (2 * _blurred(region, _grain(images)) - 1).clamp(min=0)
    shift = 2 * random_clouds((number, 2, height, width), generator, images.device).to(images) - 1
    shift = 2 * WARP * taper * shift  # sides are two units long, from −1 to 1
    still = torch.eye(2, 3, dtype=images.dtype, device=images.device).expand(number, 2, 3)
    grid = F.affine_grid(still, list(images.shape), align_corners=False) + shift.permute(0, 2, 3, 1)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


COUNTERFACTUAL = {"colour": own_colour, "texture": own_texture, "shape": own_shape}
FACTUAL = {"colour": other_colour, "texture": other_texture, "shape": other_shape}
# The shape of the mask that is changed in a factual image, where it must not be the one that is asked for: within its
# own outline an object has no other one.
FACTUAL_REGIONS: dict[str, str | None] = {"colour": None, "texture": None, "shape": "box"}


def _grain(images: Tensor) -> int:
    """Pixels, odd and 3 or more where the image allows it."""
    shorter = min(images.shape[2:])
    return min(max(3, shorter // FINEST_FORM // 2 * 2 + 1), shorter)


def _blurred(images: Tensor, side: int) -> Tensor:
    """The mean over `side` × `side` pixels around each, of those that are in the image."""
    side = side if side % 2 else side - 1
    return F.avg_pool2d(images, side, stride=1, padding=side // 2, count_include_pad=False)


def _mean(images: Tensor, foreground: Tensor) -> Tensor:
    """The mean over the foreground, `(n, channels, 1, 1)`."""
    return (images * foreground).sum((2, 3), keepdim=True) / foreground.sum((2, 3), keepdim=True).clamp(min=1)
