"""Images of any mode and depth as 8-bit RGB, by one rule for what is white."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)  # what PIL raises for a broken file
ADVICE = "Scale its values to 0 … 255 or 0 … 65535 before."


def is_deep(image: Image.Image) -> bool:
    """Whether values are not 8-bit: 16-bit and 32-bit integers (`I`, `I;16` …) and float32 (`F`)."""
    return image.mode[0] in "IF"


def white_level(kind: str, lowest: float, highest: float) -> int | None:
    """The value that is white, by the extremes of one image, or better of many of one kind.

    | largest value | is read as |
    |---|---|
    | up to 1, of floats | 0 … 1 |
    | up to 255 | 0 … 255 |
    | 2048 … 4095 | 12 bits, 0 … 4095 |
    | 4096 … 65535 | 16 bits, 0 … 65535 |

    Args:
        kind: `"I"` for integers, `"F"` for floats.
        lowest, highest: of all values.

    Returns:
        None where that is not sure: of 256 … 2047, which may be dark in 12 or in 16 bits or bright in 10, and of floats
        between 1 and 16, which would be nearly black in 0 … 255.

    Raises:
        ValueError: negative values, values above 65535 or not finite, which have no reading as grey.
    """
    if not (np.isfinite(lowest) and np.isfinite(highest)):
        raise ValueError(f"it has values that are not finite. {ADVICE}")
    if lowest < 0:
        raise ValueError(f"its values are {lowest:g} … {highest:g}, and negative ones are no shade of grey. {ADVICE}")
    if highest > 65535:
        raise ValueError(f"its values reach {highest:g}, above 16 bits. {ADVICE}")
    if kind == "F" and highest <= 1.001:  # resampling may overshoot
        return 1
    if kind == "F" and highest < 16:
        return None
    if 255 < highest < 2048:
        return None
    return next(white for white in (255, 4095, 65535) if highest <= white)


def extremes(image: Image.Image) -> tuple[float, float]:
    """Smallest and largest value of a deep image; NaN where it has one."""
    values = np.asarray(image)
    return float(values.min()), float(values.max())


def to_rgb(image: Image.Image, white: int | None = None) -> Image.Image:
    """Any PIL mode to RGB; transparency is composited over white.

    Args:
        image: of 8 bits, or a deep one.
        white: the value of a deep image that is white; by default `white_level` of its own values, and where these do
            not tell, the 16 bits of an integer image's file.

    Raises:
        ValueError: values that have no sure reading.
    """
    if is_deep(image):
        return _to_grey_levels(image, white).convert("RGB")
    if image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _to_grey_levels(image: Image.Image, white: int | None) -> Image.Image:
    values, kind = np.asarray(image, np.float64), image.mode[0]
    lowest, highest = extremes(image)
    own = white_level(kind, lowest, highest)
    if white is None:
        white = own or (65535 if kind == "I" else None)
        if white is None:
            raise ValueError(f"its largest value is {highest:g}: neither 0 … 1 nor 0 … 255. {ADVICE}")
    if highest > white * 1.001:
        raise ValueError(f"its values reach {highest:g}, those of the other images {white} at most. {ADVICE}")
    grey = (values * (255 / white)).round().clip(0, 255).astype(np.uint8)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[values == transparent] = 255
    return Image.fromarray(grey)


def stored_png(image: Image.Image) -> dict:
    """As the feature `Image` of `datasets` stores it, without loss."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=1)
    return {"bytes": buffer.getvalue(), "path": None}
