"""What may tell the class and is not the object: of pixels, of files, of columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .features import Backbone, border_masks, has_background
from .photos import Photo
from .source import Source

QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
IDENTIFIER = 0.5  # of the values of a column are distinct: a name of each image, which tells nothing of others


@dataclass
class Cue:
    """Something that every image has, and that is not the object.

    Attributes:
        key: `background`, `colour` …, of a column its name.
        title: in a sentence: "… tells the class".
        values: (n, d), n of the images in `rows`.
        deep: whether values are features of a network.
        rows: positions of the images that have it; None for all.
        kind: `pixels`, `file` or `column`.
        note: what it was measured on.
    """

    key: str
    title: str
    values: np.ndarray
    deep: bool = False
    rows: np.ndarray | None = None
    kind: str = "pixels"
    note: str = ""


def pixel_cues(photos: Sequence[Photo], backbone: Backbone) -> list[Cue]:
    """Colour, brightness, background, and of objects with a mask size and position."""
    pixels = np.stack([photo.pixels for photo in photos])
    flat = pixels.reshape(len(pixels), -1, 3).astype(np.float32) / 255
    light = flat.mean(2)
    # opponent colours, which a change of brightness leaves about as they are
    tints = np.concatenate([_summary(flat[..., 0] - flat[..., 1]), _summary(flat[..., 2] - flat[..., :2].mean(2))], 1)
    cues = [
        Cue("colour", "the colour", tints, note="red against green and blue against yellow, over the image"),
        Cue("brightness", "the brightness", _summary(light)[:, :2], note="mean and contrast of the image"),
    ]
    rows = np.array([index for index, photo in enumerate(photos) if photo.mask is not None], dtype=int)
    if not len(rows):
        features = backbone.background(pixels, border_masks(len(pixels)))
        note = (
            "the outer eighth of the image on every side, tiled over its middle: there are no masks, so it may hold "
            "parts of objects"
        )
        return [*cues, Cue("background", "the background", features, deep=True, note=note)]
    masks = np.stack([photos[index].mask for index in rows])
    usable = has_background(masks)
    rows, masks = rows[usable], masks[usable]
    features = backbone.background(pixels[rows], masks)
    note = "what lies outside of the boxes around the masks, tiled over them"
    covered = masks >= 128
    area = covered.mean((1, 2))
    middle = [
        (covered.sum(axis) * np.arange(covered.shape[1])).sum(1) / covered.sum((1, 2)) for axis in (1, 2)
    ]  # of columns, of rows
    return [
        *cues,
        Cue("background", "the background", features, deep=True, rows=rows, note=note),
        Cue("size", "the size of the object", area[:, None], rows=rows, note="share of the image that its mask covers"),
        Cue("position", "the position of the object", np.stack(middle, 1), rows=rows, note="centre of its mask"),
    ]


def file_cues(photos: Sequence[Photo]) -> list[Cue]:
    """What the files say of themselves; what is the same for all of them is left out."""
    pixels = np.array([photo.width * photo.height for photo in photos], dtype=float)
    sizes = np.array([photo.size for photo in photos], dtype=float)
    resolution = np.array([(photo.width, photo.height) for photo in photos], dtype=float)
    exif = [[photo.exif.get(name, "") for photo in photos] for name in ("EXIF", "camera", "software")]
    kinds = _codes([photo.format for photo in photos], [photo.mode for photo in photos])
    cues = [
        Cue("resolution", "the resolution", resolution, note="width and height in pixels"),
        Cue(
            "format", "the format of the file", kinds,
            note="JPEG, PNG …, and the mode: grey, colour, transparent",
        ),
        Cue(
            "compression", "the JPEG compression", np.array([[photo.quantisation] for photo in photos]),
            note="mean of the quantisation table",
        ),
        Cue(
            "bytes", "the size of the file", np.stack([sizes, sizes / pixels], 1),
            note="bytes, and bytes for each pixel: the more detail, the more of them",
        ),
        Cue("exif", "the EXIF data", _codes(*exif), note="whether there are any, the camera, the software"),
    ]  # fmt: skip
    for cue in cues:
        cue.kind = "file"
    return [cue for cue in cues if np.ptp(cue.values, axis=0).any()]


def column_cues(source: Source, photos: Sequence[Photo]) -> tuple[list[Cue], dict[str, str]]:
    """Columns that are neither image nor label, nor groups; and name -> why it was left out, of the others."""
    cues, left = [], {}
    rows = source.splits["train"].select([photo.row for photo in photos])
    for name in source.other_columns():
        values = rows[name][:]
        distinct = len(set(values))
        is_real = all(isinstance(value, float) for value in values if value is not None)
        if distinct == 1:
            left[name] = "the same for all images"
        elif distinct > IDENTIFIER * len(values) and not is_real:
            left[name] = (
                f"{distinct:,} values for {len(values):,} images: a name of each, which tells nothing of others"
            )
        else:
            numbers = all(isinstance(value, (int, float)) for value in values if value is not None)
            table = _numbers(values) if numbers else _codes(values)
            cues.append(Cue(name, f"the column {name}", table, kind="column", note=f"its {distinct:,} values"))
    return cues, left


def _summary(values: np.ndarray) -> np.ndarray:
    """Mean, deviation and quantiles over the pixels: (n, 7) of (n, pixels)."""
    quantiles = np.quantile(values, QUANTILES, axis=1).T
    return np.concatenate([values.mean(1, keepdims=True), values.std(1, keepdims=True), quantiles], 1)


def _numbers(values: Sequence) -> np.ndarray:
    return np.array([[np.nan if value is None else float(value)] for value in values])


def _codes(*columns: Sequence) -> np.ndarray:
    """Numbers for the values of columns of any kind, (n, columns)."""
    return np.stack([np.unique([str(value) for value in column], return_inverse=True)[1] for column in columns], 1)
