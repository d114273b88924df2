"""Infills x̂: what replaces the foreground of a counterfactual, or the background of a factual image (section 3.2.1).

Every infill is called as `infill(images, region, generator, **more)`:

- `images` `(n, channels, height, width)`, float, in pixel space [0, 1];
- `region` `(n, 1, height, width)`, binary: 1 = the pixels to be replaced. It is the mask `r` for a counterfactual
  image and `1 − r` for a factual one, but for those that change the object itself (`appearance.py`); each image has
  some pixels of both kinds;
- `generator`, the only source of randomness, on any device.

It returns x̂ for the whole image; `composite` puts it where the region is (Eq. 2 and 4). All work on the whole batch
at once, on the device of the images.
"""

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from . import appearance
from .background_attack import fgsm
from .draws import random_clouds, random_integers, random_normal, random_uniform
from .inpainting import Inpainter
from .tiling import mirrored, take_pixels

NOISE_SIGMA = 0.2


def composite(images: Tensor, infill: Tensor, region: Tensor) -> Tensor:
    """The infill where `region` is 1, the image, bit for bit, elsewhere (Eq. 2 and 4)."""
    return torch.where(region > 0, infill, images)


def grey(images: Tensor, region: Tensor, generator: Generator) -> Tensor:
    """Constant 0.5."""
    return torch.full_like(images, 0.5)


def random(images: Tensor, region: Tensor, generator: Generator) -> Tensor:
    """Low-frequency uniform noise, plus Gaussian noise of σ = 0.2 per pixel and channel, clipped to [0, 1].

    The low frequencies are a 4 × 4 grid of uniform values per channel, interpolated bilinearly: soft coloured clouds.
    """
    clouds = random_clouds(images.shape, generator, images.device)
    return clouds.add_(random_normal(images.shape, generator, images.device), alpha=NOISE_SIGMA).clamp_(0, 1)


def shuffle(images: Tensor, region: Tensor, generator: Generator) -> Tensor:
    """The pixels of the region permuted among themselves, all channels together: same colours, no shape.

    The images share one random order of all pixels, each rotated by its own random amount: sorting random keys for
    every image would cost as much as all other infills together.
    """
    inside = region.flatten(1) > 0
    num_images, num_pixels = inside.shape
    device = images.device
    order = torch.randperm(num_pixels, generator=generator, device=generator.device).to(device)
    rotation = random_integers(0, num_pixels, (num_images,), generator, device)
    order = order.repeat(2).unfold(0, num_pixels, 1).index_select(0, rotation)
    # Row by row, as many pixels of the region in random order as in reading order: the former replace the latter.
    source = order.masked_select(inside.gather(1, order))
    index = torch.arange(num_pixels, device=device).repeat(num_images, 1).masked_scatter_(inside, source)
    return take_pixels(images, index)


def tile(images: Tensor, region: Tensor, generator: Generator) -> Tensor:
    """The largest background rectangle (see `largest_rectangle`), tiled.

    Neighbouring tiles are mirror images of each other and the tiling is aligned with the rectangle, so the seams and
    the edge to the rectangle itself are continuous: repeated unmirrored, the seams draw a grid that no real background
    has.
    """
    top, left, height, width = largest_rectangle(region)
    rows = top + mirrored(torch.arange(images.shape[2], device=images.device) - top, height)
    columns = left + mirrored(torch.arange(images.shape[3], device=images.device) - left, width)
    return take_pixels(images, (rows[:, :, None] * images.shape[3] + columns[:, None, :]).flatten(1))


def inpaint(images: Tensor, region: Tensor, generator: Generator, *, inpainter: Inpainter) -> Tensor:
    """What an inpainting algorithm or network continues from the background (`causal/inpainting.py`)."""
    return inpainter(images, region, generator)


def mix_rand(images: Tensor, region: Tensor, generator: Generator, *, donors: Tensor, donor_box: Tensor) -> Tensor:
    """The background of another image, the donor (see `draw_donors`), with the box of its foreground tiled over.

    This is the "Mixed-Rand" of Xiao et al. (2021, "Noise or Signal") on their "Only-BG-T" backgrounds, to which the
    paper's "background of another tiled image" refers: the real background stays where it can be seen.

    Args:
        images: `(n, channels, height, width)` in [0, 1].
        region: `(n, 1, height, width)`; 1 = background.
        generator: not used.
        donors: images like `images`, in [0, 1], one for each.
        donor_box: `(n, 1, height, width)`, the box around the foreground of the donor. A box also where the images
            themselves are cut out exactly, lest outline and rim of the donor's foreground tell the donor's class.
    """
    return composite(donors, tile(donors, donor_box, generator), donor_box)


def draw_donors(
    labels: Tensor, donor_labels: Tensor, usable: Tensor, generator: Generator, own: Tensor | None = None
) -> Tensor:
    """Draw for each image a random donor of another class for `mix_rand`; if there is none, one of the same class.

    Args:
        labels: `(n,)`.
        donor_labels: `(m,)`.
        usable: bool `(m,)`: the donors whose box leaves some background.
        generator: draws.
        own: `(n,)`, the position of each image among the donors, itself no donor for it; not needed if the donors are
            others.

    Returns:
        int64 `(n,)`, positions among the donors.

    Raises:
        ValueError: no donor is left for some image.
    """
    num_donors, device = len(donor_labels), labels.device
    usable = usable.expand(len(labels), num_donors)
    if own is not None:
        usable = usable & (torch.arange(num_donors, device=device) != own[:, None])
    # Donors of another class score in [1, 2), those of the same class in [0, 1), unusable ones −1.
    score = random_uniform(usable.shape, generator, device) + (donor_labels != labels[:, None])
    best, donor = score.masked_fill(~usable, -1).max(1)
    if (best < 0).any():
        raise ValueError(
            "mix_rand found no image to take a background from: it needs another image with foreground and background "
            "in the meta batch or among the donors. Use a larger meta batch, donors with masks, or another infill."
        )
    return donor


def has_donor(labels: Tensor, usable: Tensor) -> Tensor:
    """Which images of a batch find a donor of another class in it.

    Args:
        labels: `(n,)`.
        usable: bool `(n,)`, as of `draw_donors`.

    Returns:
        bool `(n,)`.
    """
    return ((labels[:, None] != labels) & usable).any(1)


COUNTERFACTUAL_INFILLS: dict[str, Callable[..., Tensor]] = {
    "grey": grey,
    "random": random,
    "shuffle": shuffle,
    "tile": tile,
    "inpaint": inpaint,
    **appearance.COUNTERFACTUAL,
}
FACTUAL_INFILLS: dict[str, Callable[..., Tensor]] = {
    "random": random,
    "shuffle": shuffle,
    "mix_rand": mix_rand,
    "fgsm": fgsm,
    **appearance.FACTUAL,
}


def largest_rectangle(region: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The largest axis-aligned rectangle that starts in a corner of the image and misses the region.

    For a box this is the largest of all rectangles, one of the four bands beside the box. For an exact shape it is at
    least as large as the best band beside its enclosing box, and exists even if that box fills the image. If the
    region holds all four corners, it is a single pixel outside of it.

    Args:
        region: `(n, 1, height, width)` binary.

    Returns:
        top, left, height and width, each int64 `(n, 1)`.
    """
    rows, columns = region.shape[2:]
    hit = region[:, 0] > 0
    reach = [_first_true(hit), _first_true(hit.flip(2))]  # free pixels of each row, from the left and from the right
    widths = torch.stack([*reach, *(side.flip(1) for side in reach)], 1).cummin(2).values  # (n, corner, height - 1)
    areas = widths * torch.arange(1, rows + 1, device=region.device)
    area, best = areas.flatten(1).max(1, keepdim=True)
    height, width = best % rows + 1, widths.flatten(1).gather(1, best)
    from_bottom, from_right = best // rows // 2, best // rows % 2
    top, left = from_bottom * (rows - height), from_right * (columns - width)

    pixel = _first_true(~hit.flatten(1)).clamp(max=rows * columns - 1)[:, None]
    found = area > 0
    return (
        torch.where(found, top, pixel // columns),
        torch.where(found, left, pixel % columns),
        height.where(found, 1),
        width.where(found, 1),
    )


def _first_true(values: Tensor) -> Tensor:
    """Index of the first True along the last dimension; its length if there is none."""
    length = values.shape[-1]
    # Much faster than argmax, and exact: float32 holds all integers up to 2²⁴.
    return length - (values * torch.arange(length, 0, -1.0, device=values.device)).amax(-1).long()
