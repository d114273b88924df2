"""Masks on their images, side by side, to be judged by eye."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

OUTLINE = (255, 40, 40)
DIMMED = 0.35  # brightness of the background
LINE = 14  # pixels of a line of text
GAP = 4


def contact_sheet(
    images: Sequence[Image.Image],
    masks: Sequence[Image.Image],
    captions: Sequence[str] | None = None,
    columns: int = 6,
    side: int = 144,
) -> Image.Image:
    """Every image with its background dimmed and the outline of its mask drawn in red, a caption below it.

    Args:
        images: RGB.
        masks: mode L, each of its image's size, 255 = foreground; a pixel of at least 128 is foreground.
        captions: one for each image.
        columns: tiles in a row.
        side: of a tile, pixels, which the longer side of an image fits.

    Raises:
        ValueError: not as many masks or captions as images, or no images.
    """
    captions = [""] * len(images) if captions is None else captions
    if not len(images) == len(masks) == len(captions) or not len(images):
        raise ValueError(
            f"Need as many masks and captions as images, and one at least; found {len(images)} images, {len(masks)} "
            f"masks, {len(captions)} captions."
        )
    columns = min(columns, len(images))
    width, height = side + GAP, side + LINE + GAP
    sheet = Image.new("RGB", (columns * width + GAP, -(-len(images) // columns) * height + GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for index, (image, mask, caption) in enumerate(zip(images, masks, captions, strict=True)):
        left, top = GAP + index % columns * width, GAP + index // columns * height
        sheet.paste(_tile(image, mask, side), (left, top))
        draw.text((left, top + side), caption, fill="black")
    return sheet


def _tile(image: Image.Image, mask: Image.Image, side: int) -> Image.Image:
    scale = side / max(image.size)
    size = tuple(max(1, round(scale * length)) for length in image.size)
    image = image.resize(size, Image.Resampling.BILINEAR)
    foreground = mask.resize(size, Image.Resampling.BILINEAR).point(lambda value: 255 * (value >= 128))
    # MaxFilter and not FIND_EDGES, which draws the rim of the image too
    outline = np.asarray(foreground.filter(ImageFilter.MaxFilter(3))) != np.asarray(foreground)
    shown = Image.composite(image, image.point(lambda value: round(DIMMED * value)), foreground)
    pixels = np.array(shown)
    pixels[outline] = OUTLINE
    return Image.fromarray(pixels)
