"""What the values of a mask mean: which pixels are foreground, in the encodings in which masks are found.

| mask | foreground |
|---|---|
| transparent (RGBA, LA) | what is opaque; where nothing is transparent, by its colours |
| palette of colours, index 0 black (PASCAL VOC) | every index but 0 and 255, the border |
| colours on black | what is not black |
| two values, one of them 0 (0/1, 0/15, 0/255, 0/65535) | the other one |
| 1, 2, 3 (trimap of Oxford-IIIT Pet) | 1; 2 is background, 3 the border |
| floats 0 … 1 | at least 0.5: soft |
| grey up to at least half of white | at least half: soft |

All else could be read in two ways and is refused, until the values that are foreground are given.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

OXFORD_TRIMAP, VOID = (1, 2, 3), 255
NEARLY_BLACK = 64  # of a colour's strongest channel: JPEG leaves no exact black; the darkest colour of VOC has 64
FEW_COLOURS = 64  # drawn or painted, and not blurred by JPEG
MOST_CLASSES = 40  # an index map counts its classes from 0 on; soft values are everywhere
FIX = "Say which values are foreground: --mask_value (mask_value), one or more."


def to_grey(mask: Image.Image, foreground: Sequence[int] | None = None) -> Image.Image:
    """Any mask to L, 255 = foreground.

    Args:
        mask: of any PIL mode.
        foreground: the values that are foreground, as they are stored (of a palette image the indices); by default as
            the table of this module says.

    Raises:
        ValueError: it could be read in two ways; says what it holds.
    """
    if foreground is not None:
        return _image(255 * np.isin(_stored(mask), list(foreground)))
    if mask.mode == "1":
        return mask.convert("L")
    if mask.mode in ("LA", "La", "RGBA", "RGBa", "PA"):
        return _transparent(mask.convert("RGBA"))
    if mask.mode == "P":
        return _indexed(mask)
    if mask.mode == "F":
        return _real(np.asarray(mask))
    if mask.mode == "L" or mask.mode.startswith("I"):
        return _counted(np.asarray(mask))
    return _coloured(mask.convert("RGB"))


def box_mask(box: Sequence[float], size: tuple[int, int]) -> Image.Image:
    """A box (xyxy, pixels) as a mask of an image of this (width, height), rounded to pixels and at least one large."""
    ends = []
    for low, high, length in zip(box[:2], box[2:], size, strict=True):
        start = min(max(round(low), 0), length - 1)
        ends.append((start, max(start + 1, round(high))))
    (left, right), (top, bottom) = ends
    mask = Image.new("L", size)
    mask.paste(255, (left, top, right, bottom))
    return mask


def _stored(mask: Image.Image) -> np.ndarray:
    """The values (h, w) as they are stored, of several channels the only one that is not constant."""
    values = np.asarray(mask)
    if values.ndim == 2:
        return values.astype(np.float64) if mask.mode == "F" else values.astype(np.int64)
    varying = [channel for channel in np.moveaxis(values, 2, 0) if np.ptp(channel)]
    if any(not np.array_equal(channel, varying[0]) for channel in varying[1:]):
        raise ValueError(f"it is {mask.mode} and its channels differ, so mask_value cannot say what is foreground")
    return (varying or [values[..., 0]])[0].astype(np.int64)


def _transparent(mask: Image.Image) -> Image.Image:
    colours, alpha = mask.convert("RGB"), np.asarray(mask.getchannel("A"))
    if not np.ptp(alpha):
        return _coloured(colours) if alpha.flat[0] or _varies(colours) else _image(alpha)
    pixels = np.asarray(colours)
    is_mask = _varies(colours) and np.isin(pixels, (0, 255)).all() and (pixels == pixels[..., :1]).all()
    if is_mask and not np.array_equal(pixels[..., 0] >= 128, alpha >= 128):
        raise ValueError(
            "both its colours, black and white, and its transparency could be the mask, and they differ. Store the one "
            "that is, as a grey image"
        )
    return _image(alpha)


def _varies(image: Image.Image) -> bool:
    return any(low != high for low, high in image.getextrema())


def _indexed(mask: Image.Image) -> Image.Image:
    indices = np.asarray(mask)
    used = np.unique(indices)
    palette = np.asarray(mask.getpalette(), np.uint8).reshape(-1, 3)
    palette = np.concatenate([palette, np.zeros((256 - len(palette), 3), np.uint8)])
    if (palette[used] == palette[used][:, :1]).all():  # a grey image in another form
        return _counted(palette[indices][..., 0])
    if palette[0].any():
        return _coloured(mask.convert("RGB"))
    return _image(255 * ((indices != 0) & (indices != VOID)))


def _coloured(mask: Image.Image) -> Image.Image:
    pixels = np.asarray(mask)
    if (pixels == pixels[..., :1]).all():
        return _counted(pixels[..., 0])
    strongest = pixels.max(2)
    painted = len(np.unique(pixels.reshape(-1, 3) @ (1, 256, 65536))) <= FEW_COLOURS
    foreground = strongest > 0 if painted else strongest >= NEARLY_BLACK
    if foreground.all():
        raise ValueError("it has colours and no black, so nothing says which of them is background")
    return _image(255 * foreground)


def _real(values: np.ndarray) -> Image.Image:
    if not np.isfinite(values).all():
        raise ValueError("it has values that are NaN or infinite")
    if values.min() < 0:
        raise ValueError(f"it has values from {values.min():g}; expected 0 … 1")
    if values.max() <= 1:
        return _image((255 * values.astype(np.float64)).round())
    if np.array_equal(values, values.round()):
        return _counted(values.astype(np.int64))
    return _graded(values, 255)


def _counted(values: np.ndarray) -> Image.Image:
    """A mask of integers."""
    used = np.flatnonzero(np.bincount(values.ravel())) if values.dtype == np.uint8 else np.unique(values)
    if used[0] < 0:
        raise ValueError(f"it has values from {used[0]}; expected 0 or more. {FIX}")
    if tuple(used) == OXFORD_TRIMAP:
        return _image(255 * (values == 1))
    if (len(used) <= 2 and used[0] == 0) or tuple(used) == (1,):
        return _image(255 * (values != 0))
    middle = used[(used > MOST_CLASSES) & (used < VOID)]
    if used[-1] == VOID and len(used) > 1 and not len(middle):
        raise _ambiguous(used)  # classes and the border between them? In a soft mask 255 would be the object
    return _graded(values, 255 if used[-1] <= 255 else 65535)


def _graded(values: np.ndarray, white: int) -> Image.Image:
    if not white / 2 <= values.max() <= white:
        raise _ambiguous(np.unique(values))
    return _image((values * (255 / white)).round())


def _ambiguous(used: np.ndarray) -> ValueError:
    told = ", ".join(f"{value:g}" for value in used[:10]) + (" …" if len(used) > 10 else "")
    return ValueError(f"its values are {told}, which could be read in several ways. {FIX}")


def _image(values: np.ndarray) -> Image.Image:
    return Image.fromarray(values.astype(np.uint8))
