"""Boxes around the object, in the forms in which they are found, as corners in pixels of their image."""

from __future__ import annotations

import io

import numpy as np
from datasets import Dataset, DatasetDict, Value
from datasets import Image as ImageFeature
from datasets import Sequence as SequenceFeature
from PIL import ExifTags, Image
from transformers.utils import logging

from .columns import BOX_FORMATS

logger = logging.get_logger(__name__)

ROUNDING = 1.0  # pixels that a box may stick out by
LEAST_INSIDE = 0.5  # of a box's area: what sticks out further is no cut-off object


def corner_boxes(splits: DatasetDict, box_format: str) -> DatasetDict:
    """The column `box` as left, top, right, bottom, in pixels of the image beside it.

    A box that sticks out of its image by less than half of its area is cut off at the edge.

    Args:
        splits: with `image` and `box`: four numbers, or a list of one such box.
        box_format: one of `BOX_FORMATS`.

    Raises:
        ValueError: an unknown format, several boxes of one image, values that are missing, not finite, without area or
            outside the image, or all of them as they would be in another format.
    """
    if box_format not in BOX_FORMATS:
        raise ValueError(f"box_format must be one of {', '.join(map(repr, BOX_FORMATS))}, got {box_format!r}.")
    return DatasetDict({role: _converted(split, role, box_format) for role, split in splits.items()})


def refuse_two_readings(split: Dataset, role: str) -> None:
    """Refuse boxes that may be corners, as `corner_boxes` gives them, and COCO's left, top, width, height as well.

    Args:
        split: with `image` and `box`.
        role: of it, for the message.

    Raises:
        ValueError: all boxes lie in their images either way.
    """
    where = f"Column 'box', split {role!r}"
    boxes = np.asarray([_four_numbers(box, f"{where}, index {index}") for index, box in enumerate(split["box"][:])])
    boxes, sizes = boxes.reshape(-1, 4), image_sizes(split, role)
    if len(boxes) and all(_fits(_corners(boxes, name, sizes), sizes) for name in ("xyxy", "xywh")):
        raise ValueError(
            f"{where}: boxes such as {boxes[0].tolist()} lie in their images whether they are left, top, right, bottom "
            "(xyxy) or left, top, width, height (xywh). Say which: box_column='box' and box_format."
        )


def _converted(split: Dataset, role: str, box_format: str) -> Dataset:
    where = f"Column 'box', split {role!r}"
    boxes = np.asarray([_four_numbers(box, f"{where}, index {index}") for index, box in enumerate(split["box"][:])])
    boxes = boxes.reshape(-1, 4)
    is_relative = box_format.startswith("normalised_")
    shares = np.flatnonzero((boxes <= 1).all(1)).tolist()
    if shares and not is_relative:
        relative = ", ".join(name for name in BOX_FORMATS if name.startswith("normalised_"))
        raise ValueError(
            f"{where}, index {shares[0]}: in {boxes[shares[0]].tolist()}, one of {len(shares)} such boxes of "
            f"{len(boxes)}, no number is larger than 1: these are shares of the image and not pixels ({box_format}). "
            f"Set box_format to one of {relative} (YOLO's is the last)."
        )
    sizes = image_sizes(split, role)
    corners = _corners(boxes, box_format, sizes)
    if wrong := np.flatnonzero(~(corners[:, 2:] > corners[:, :2]).all(1)).tolist():
        raise ValueError(
            f"{where}, index {wrong[0]}: empty box {corners[wrong[0]].tolist()} (xyxy) when read as {box_format}; "
            f"{len(wrong)} such boxes."
        )
    _refuse_another_format(boxes, corners, box_format, sizes, where)
    inside = np.clip(corners, 0, np.tile(sizes, 2))
    if wrong := np.flatnonzero(_area(inside) < LEAST_INSIDE * _area(corners)).tolist():
        index = wrong[0]
        raise ValueError(
            f"{where}, index {index}: the box {corners[index].round(2).tolist()} (xyxy) lies outside its image of "
            f"{sizes[index][0]:.0f} x {sizes[index][1]:.0f} pixels (width x height), or sticks out by most of its "
            f"area, when read as {box_format}; {len(wrong)} such boxes. Repair them, or set box_format."
        )
    if count := int(_sticks_out(corners, sizes).sum()):
        logger.warning(f"{where}: {count} of {len(boxes)} boxes stick out of their image and are cut off at its edge.")
    feature = SequenceFeature(Value("float32"))
    return split.remove_columns("box").add_column("box", inside.tolist(), feature=feature)


def _four_numbers(box, where: str) -> list[float]:
    if isinstance(box, (list, tuple)) and len(box) == 1 and isinstance(box[0], (list, tuple)):
        box = box[0]
    if isinstance(box, (list, tuple)) and len(box) and all(isinstance(part, (list, tuple)) for part in box):
        raise ValueError(
            f"{where}: there are {len(box)} boxes, and nobody says which is around the object. Give every image "
            "one: the object's, or the smallest around all of them."
        )
    is_box = isinstance(box, (list, tuple)) and len(box) == 4
    if not is_box or any(isinstance(side, (str, bool)) or side is None for side in box):
        raise ValueError(f"{where}: expected four numbers, got {box!r}.")
    if not np.isfinite(np.asarray(box, dtype=float)).all():
        raise ValueError(f"{where}: expected four finite numbers, got {list(box)}.")
    return list(box)


def _corners(boxes: np.ndarray, box_format: str, sizes: np.ndarray) -> np.ndarray:
    corners = boxes.astype(np.float64)
    order = box_format.removeprefix("normalised_")
    if order == "cxcywh":
        corners[:, :2] -= corners[:, 2:] / 2
    if order != "xyxy":
        corners[:, 2:] += corners[:, :2]
    return corners * np.tile(sizes, 2) if box_format.startswith("normalised_") else corners


def _refuse_another_format(boxes, corners, box_format: str, sizes, where: str) -> None:
    """Most boxes leave their image as they were read, and none would in another form of the same units."""
    if not len(boxes) or _sticks_out(corners, sizes).mean() <= 0.5:
        return
    prefix = "normalised_" if box_format.startswith("normalised_") else ""
    for other in (name for name in BOX_FORMATS if name.startswith("normalised_") == bool(prefix)):
        if _fits(_corners(boxes, other, sizes), sizes):
            raise ValueError(
                f"{where}: read as {box_format} most boxes leave their image, such as {boxes[0].tolist()}; read as "
                f"{other} all lie inside. Set box_format to {other!r}."
            )


def _fits(corners: np.ndarray, sizes: np.ndarray) -> bool:
    """Whether all have an area, and lie in their images."""
    return bool((corners[:, 2:] > corners[:, :2]).all() and not _sticks_out(corners, sizes).any())


def _sticks_out(corners: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    return ((corners < -ROUNDING) | (corners > np.tile(sizes, 2) + ROUNDING)).any(1)


def _area(corners: np.ndarray) -> np.ndarray:
    return np.prod(np.maximum(corners[:, 2:] - corners[:, :2], 0), axis=1)


def image_sizes(split: Dataset, role: str) -> np.ndarray:
    """Width and height of every image, (n, 2), from its header; turned as its EXIF data say."""
    rows = split.select_columns("image").cast_column("image", ImageFeature(decode=False)).with_format(None)
    sizes = []
    for index, row in enumerate(rows):
        try:
            stored = row["image"]
            content = stored["path"] if stored["bytes"] is None else io.BytesIO(stored["bytes"])
            with Image.open(content) as image:
                turned = image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
                sizes.append(image.size[::-1] if turned else image.size)
        except (OSError, SyntaxError, ValueError, TypeError, Image.DecompressionBombError) as error:
            raise ValueError(f"{role}, index {index}: the image cannot be decoded: {error}") from error
    return np.asarray(sizes, dtype=np.float64).reshape(-1, 2)
