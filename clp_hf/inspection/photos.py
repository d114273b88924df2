"""Every image opened once: what its file says, what is wrong with it, and what it looks like, small."""

from __future__ import annotations

import hashlib
import io
import os
import warnings
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from ..data.mask_values import box_mask, to_grey
from ..data.pixels import UNREADABLE, to_rgb

SIDE = 96  # pixels of what is kept of an image, squeezed; recipes see as many by default
SMALL = 32  # of what tells near duplicates
FREQUENCIES = 8  # in each direction, of a perceptual hash
BATCH = 256  # files whose content is in memory at once
USUAL_MODES = ("RGB", "L")


@dataclass
class Photo:
    """An image of a data set.

    Attributes:
        split, row: where it is.
        name: of its file, or split and row.
        problem: why it cannot be read, None where it can be.
        format, mode: as PIL calls them; `frames` of an animation.
        width, height: pixels, turned as the EXIF data say.
        size: of the file, bytes.
        digest: of the file's content.
        quantisation: mean of the JPEG's first table: the higher the stronger it is compressed; 0 of other formats.
        exif: the camera, the software, and whether there are such data at all.
        hash: (63,) bool, perceptual.
        small: (SMALL, SMALL, 3) uint8.
        spread: standard deviation of the pixels, of 255.
        pixels: (SIDE, SIDE, 3) uint8, of those that are looked at closely; `mask` (SIDE, SIDE) uint8 likewise.
        mask_problem: why the mask cannot be read.
    """

    split: str
    row: int
    name: str
    problem: str | None = None
    format: str = ""
    mode: str = ""
    frames: int = 1
    width: int = 0
    height: int = 0
    size: int = 0
    digest: str = ""
    quantisation: float = 0.0
    exif: dict[str, str] = field(default_factory=dict)
    hash: np.ndarray | None = None
    small: np.ndarray | None = None
    spread: float = 0.0
    pixels: np.ndarray | None = None
    mask: np.ndarray | None = None
    mask_problem: str | None = None


def open_photos(source, split: str, rows: Iterable[int], closely: Collection[int] = ()) -> list[Photo]:
    """Open images of a split, on all cores. None is too broken for it.

    Args:
        source: a `Source`.
        split: its role.
        rows: which.
        closely: those of them whose pixels and masks are kept.
    """
    rows, closely = list(rows), set(closely)
    encoded = source.encoded(split, source.roles["image"])
    with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count()) as pool:
        warnings.simplefilter("ignore")  # PIL's, of damaged EXIF data and of large images
        photos = []
        for part in _batches(rows):
            stored = encoded.select(part)[source.roles["image"]][:]
            jobs = ((split, row, content, row in closely) for row, content in zip(part, stored, strict=True))
            photos += pool.map(_open, *zip(*jobs, strict=True))
    return photos


def add_masks(photos: list[Photo], source, mask_value: list[int] | None = None) -> None:
    """Read the masks of photos of one split that pixels are kept of, and forget those without foreground."""
    column = source.roles["mask"]
    chosen = [photo for photo in photos if photo.pixels is not None]
    for part in _batches(chosen):
        encoded = source.encoded(part[0].split, column).select([photo.row for photo in part])
        for photo, stored in zip(part, encoded[column][:], strict=True):
            try:
                mask = to_grey(_decoded(stored), mask_value)
            except Exception as error:  # likewise
                photo.mask_problem = str(error)
                continue
            if mask.size != (photo.width, photo.height):
                photo.mask_problem = (
                    f"{mask.width} × {mask.height} pixels, and its image {photo.width} × {photo.height}"
                )
            else:
                photo.mask = np.asarray(mask.resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def add_boxes(photos: list[Photo], boxes: Iterable[list[float]]) -> None:
    """Draw boxes (xyxy, pixels), one for each photo, as their masks."""
    for photo, box in zip(photos, boxes, strict=True):
        mask = box_mask(box, (photo.width, photo.height))
        photo.mask = np.asarray(mask.resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def read_image(source, photo: Photo) -> Image.Image | None:
    """The image itself, turned as its EXIF data say; None where it cannot be read."""
    column = source.roles["image"]
    try:
        image = ImageOps.exif_transpose(_decoded(source.encoded(photo.split, column)[photo.row][column]))
        image.load()
    except UNREADABLE:
        return None
    return image


def _batches(items: list) -> Iterator[list]:
    return (items[start : start + BATCH] for start in range(0, len(items), BATCH))


def _content(stored: dict | None) -> bytes:
    if stored is None:
        raise ValueError("it is missing (None)")
    return Path(stored["path"]).read_bytes() if stored["bytes"] is None else stored["bytes"]


def _decoded(stored: dict | None) -> Image.Image:
    return Image.open(io.BytesIO(_content(stored)))


def _open(split: str, row: int, stored: dict | None, closely: bool) -> Photo:
    path = stored and stored.get("path")
    photo = Photo(split, row, os.path.basename(path) if path else f"{split} {row}")
    try:
        content = _content(stored)
        photo.size, photo.digest = len(content), hashlib.sha1(content).hexdigest()
        with Image.open(io.BytesIO(content)) as image:
            _read_header(photo, image)
            image.draft(None, (2 * SIDE, 2 * SIDE))  # a JPEG is decoded no larger than it is needed
            rgb = to_rgb(ImageOps.exif_transpose(image))
    except UnidentifiedImageError:
        photo.problem = "it is no image of a known format"
        return photo
    except Exception as error:  # whatever a decoder raises
        photo.problem = str(error) or type(error).__name__
        return photo
    squeezed = rgb.resize((SIDE, SIDE), Image.Resampling.BILINEAR, reducing_gap=3.0)
    photo.spread = float(np.asarray(squeezed, np.float32).std((0, 1)).max())
    small = squeezed.resize((SMALL, SMALL), Image.Resampling.BOX)
    photo.small, photo.hash = np.asarray(small), perceptual_hash(np.asarray(small.convert("L"), np.float32))
    if closely:
        photo.pixels = np.asarray(squeezed)
    return photo


def _read_header(photo: Photo, image: Image.Image) -> None:
    photo.format, photo.mode = image.format or "?", image.mode
    if "transparency" in image.info:
        photo.mode += ", transparent"
    photo.frames = getattr(image, "n_frames", 1)
    exif = image.getexif()
    turned = exif.get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
    photo.width, photo.height = image.size[::-1] if turned else image.size
    tables = getattr(image, "quantization", None)
    if tables:
        photo.quantisation = float(np.mean(next(iter(tables.values()))))
    tags = {"camera": ExifTags.Base.Model, "software": ExifTags.Base.Software}
    photo.exif = {name: str(exif[tag]).strip()[:60] for name, tag in tags.items() if tag in exif}
    photo.exif["EXIF"] = "yes" if len(exif) else "no"


def _cosines() -> np.ndarray:
    """(FREQUENCIES, SMALL): rows of the discrete cosine transform."""
    angles = np.outer(np.arange(FREQUENCIES), 2 * np.arange(SMALL) + 1) * np.pi / (2 * SMALL)
    return np.cos(angles).astype(np.float32)


COSINES = _cosines()


def perceptual_hash(grey: np.ndarray) -> np.ndarray:
    """Which of the lowest frequencies of a grey image are above their median: (63,) bool; brightness does not count.

    Args:
        grey: (SMALL, SMALL).
    """
    frequencies = (COSINES @ grey @ COSINES.T).ravel()[1:]
    return frequencies > np.median(frequencies)
