"""Causal masks: 1 = foreground, the causal part of the image; 0 = background. Shape `(n, 1, height, width)`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

MASK_SHAPES = ("box", "exact")
BOX_FORMATS = ("xywh", "xyxy")


def binarize(mask: Tensor) -> Tensor:
    """The foreground of a soft mask as booleans: at least half covered."""
    return mask >= 0.5


def boxes_to_masks(
    boxes: Tensor | Sequence[Sequence[float]], height: int, width: int, box_format: str = "xywh"
) -> Tensor:
    """Draw one bounding box per image as a mask.

    Args:
        boxes: `(n, 4)`, in pixels of the `height` × `width` image, the origin at its top left corner. A pixel that the
            box covers in part belongs to it. An edge may stick out of the image by at most one pixel (rounding).
        height: of the masks.
        width: of the masks.
        box_format: `"xywh"` (left, top, width, height: COCO) or `"xyxy"` (left, top, right, bottom).

    Returns:
        float32 masks `(n, 1, height, width)` of zeros and ones, on the device of the boxes.

    Raises:
        ValueError: unknown format, another shape, or a box that is empty, not finite or not inside the image (names
            its index).
    """
    if box_format not in BOX_FORMATS:
        raise ValueError(f"Unknown box_format {box_format!r}; valid are {', '.join(map(repr, BOX_FORMATS))}.")
    boxes = torch.as_tensor(boxes, dtype=torch.float32)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"boxes must have shape (n, 4), one box per image, found {tuple(boxes.shape)}.")
    start, end = boxes[:, :2], boxes[:, 2:]
    if box_format == "xywh":
        end = start + end
    limit = boxes.new_tensor([width, height])
    other_format = BOX_FORMATS[box_format == "xywh"]
    for problem, bad in (
        ("is not finite", ~boxes.isfinite().all(1)),
        ("has no area", (end <= start).any(1)),
        (f"is not inside its {height} x {width} image", ((start < -1) | (end > limit + 1)).any(1)),
    ):
        if bad.any():
            index = int(bad.nonzero()[0])
            raise ValueError(
                f"Box {index} {problem}: {boxes[index].tolist()} read as {box_format}. Fix the box, give boxes in "
                "pixels of the image as it is after resizing, or say "
                f"box_format={other_format!r} if that is what they are."
            )
    inside = [
        (torch.arange(size, device=boxes.device) + 1 > start[:, axis, None])
        & (torch.arange(size, device=boxes.device) < end[:, axis, None])
        for axis, size in enumerate((width, height))
    ]
    return (inside[1][:, None, :, None] & inside[0][:, None, None, :]).float()


def enclosing_box(mask: Tensor) -> Tensor:
    """Replace each mask by the smallest box around its foreground (`mask >= 0.5`); an empty mask stays empty.

    The outline of the foreground tells the class too, so cutting along it would leave that hint in the counterfactual
    image; a box leaves only place and size (section 3.2.1 of the CLP paper).

    Args:
        mask: `(n, 1, height, width)` in [0, 1].

    Returns:
        Binary mask of the same shape and dtype.
    """
    # Floats where there are many values: reducing and combining booleans is several times slower.
    rows, columns = (_fill_between(binarize(mask.amax(dim, keepdim=True)), 5 - dim) for dim in (3, 2))
    return rows.to(mask.dtype) * columns.to(mask.dtype)


def _fill_between(present: Tensor, dim: int) -> Tensor:
    """True from the first to the last True along `dim`."""
    seen = present.cumsum(dim)
    return (seen > 0) & (seen - present.long() < seen.select(dim, -1).unsqueeze(dim))


def prepare_masks(mask: Tensor, shape: str = "box") -> Tensor:
    """Binarise masks or alpha mattes at 0.5 and give them the shape that infills use.

    Args:
        mask: `(n, 1, height, width)` in [0, 1].
        shape: `"box"`, the smallest enclosing box (the paper's choice), or `"exact"`.

    Returns:
        Mask of zeros and ones, of the same shape and dtype.

    Raises:
        ValueError: unknown `shape`, or `mask` is not `(n, 1, height, width)`.
    """
    check_mask_shape(shape)
    _check_dimensions(mask)
    return enclosing_box(mask) if shape == "box" else binarize(mask).to(mask.dtype)


class Masks:
    """The masks of a batch; each shape of them is made once, whoever asks for it.

    Args:
        soft: `(n, 1, height, width)` in [0, 1], as they are loaded.

    Raises:
        ValueError: `soft` has another shape.
    """

    def __init__(self, soft: Tensor):
        _check_dimensions(soft)
        self.soft = soft
        self._shaped: dict[str, Tensor] = {}

    @classmethod
    def of(cls, masks: Tensor | Masks) -> Masks:
        """Masks from a tensor; those that are such already as they are."""
        return masks if isinstance(masks, cls) else cls(masks)

    def shaped(self, shape: str) -> Tensor:
        """As `prepare_masks`: zeros and ones, `"box"` or `"exact"`."""
        if shape not in self._shaped:
            self._shaped[shape] = prepare_masks(self.soft, shape)
        return self._shaped[shape]


def check_mask_shape(shape: str) -> None:
    """Raise a ValueError that lists the valid shapes if this is none."""
    if shape not in MASK_SHAPES:
        raise ValueError(f"Unknown mask shape {shape!r}; valid are {', '.join(map(repr, MASK_SHAPES))}.")


def _check_dimensions(mask: Tensor) -> None:
    if mask.ndim != 4 or mask.shape[1] != 1:
        raise ValueError(f"Masks must have shape (n, 1, height, width), found {tuple(mask.shape)}.")


def maskable(mask: Tensor) -> Tensor:
    """Which images have both foreground and background, so that a causal augmentation of them exists.

    Pass what `prepare_masks` returned: a box can cover an image of which the exact shape leaves a corner.

    Args:
        mask: `(n, 1, height, width)` in [0, 1].

    Returns:
        bool `(n,)`.
    """
    values = mask.flatten(1)
    return binarize(values.amax(1)) & ~binarize(values.amin(1))


def mask_iou(mask: Tensor, other: Tensor) -> Tensor:
    """Intersection over union of the foregrounds (`>= 0.5`) of each pair of masks; 1 where both are empty.

    Args:
        mask, other: `(n, 1, height, width)` in [0, 1].

    Returns:
        float32 `(n,)` in [0, 1].
    """
    mask, other = binarize(mask).flatten(1), binarize(other).flatten(1)
    union = (mask | other).sum(1)
    return torch.where(union > 0, (mask & other).sum(1) / union, 1.0)


def trimap(mask: Tensor, band: int) -> Tensor:
    """What a matting model asks for: sure background (0), sure foreground (1), and an unknown band (0.5) between them.

    Unknown is what lies within `band` pixels (along rows and columns, diagonals included) of the outline.

    Args:
        mask: `(n, 1, height, width)` in [0, 1].
        band: pixels, at least 1.

    Returns:
        float32, of the same shape.
    """
    covered = binarize(mask).float()
    foreground, background = (1 - F.max_pool2d(other, 2 * band + 1, 1, band) for other in (1 - covered, covered))
    return (1 + foreground - background) / 2
