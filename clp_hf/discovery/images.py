"""The images of a data set as commands look at them, outside of any recipe."""

from __future__ import annotations

from pathlib import Path

from datasets import DatasetDict
from datasets import Image as ImageFeature
from markupsafe import Markup
from PIL import Image

from ..data.pixels import to_rgb
from ..utils.page import data_uri, jpeg

SIDE = 160  # of a thumbnail, pixels


def file_names(splits: DatasetDict) -> list[str]:
    """Of every image of all splits, one after another: its file, or nothing where it lies in none."""
    names = []
    for split in splits.values():
        encoded = split.select_columns("image").cast_column("image", ImageFeature(decode=False))
        names += [image["path"] or "" for image in encoded.with_format(None)["image"]]
    return names


def named(file: str, split: str, index: int) -> str:
    """An image as a caption names it: by its file, else by where it stands."""
    return Path(file).name if file else f"{split}, index {index}"


def thumbnail(image: Image.Image) -> Markup:
    """A small JPEG as a data URI."""
    small = to_rgb(image)
    small.thumbnail((SIDE, SIDE))
    return data_uri(jpeg(small, quality=85), "jpeg")
