"""The images of a data set as commands look at them, outside of any recipe."""

from __future__ import annotations

from datasets import DatasetDict
from datasets import Image as ImageFeature
from markupsafe import Markup
from PIL import Image

from ..data.columns import Columns
from ..data.loading import VALIDATION_SPLITS, load_classification_dataset
from ..data.pixels import to_rgb
from ..data.sources import read_splits
from ..utils.page import data_uri, jpeg

SIDE = 160  # of a thumbnail, pixels


def labelled_splits(data: str, columns: Columns, config_name: str | None = None) -> DatasetDict:
    """The splits of a data set that have labels, whole and in their order: nothing is held out for validation.

    Args:
        data, columns, config_name: as for `load_classification_dataset`.

    Raises:
        ValueError, ConnectionError: as that one.
    """
    source = read_splits(data, config_name)
    train = "train" if "train" in source or len(source) > 1 else next(iter(source))
    validation = next((name for name in VALIDATION_SPLITS if name in source and name != train), None)
    splits = load_classification_dataset(source, columns, train_split=train, validation_split=validation or train)
    if validation is None:
        del splits["validation"]
    return splits


def file_names(splits: DatasetDict) -> list[str]:
    """Of every image of all splits, one after another: its file, or nothing where it lies in none."""
    names = []
    for split in splits.values():
        encoded = split.select_columns("image").cast_column("image", ImageFeature(decode=False))
        names += [image["path"] or "" for image in encoded.with_format(None)["image"]]
    return names


def thumbnail(image: Image.Image) -> Markup:
    """A small JPEG as a data URI."""
    small = to_rgb(image)
    small.thumbnail((SIDE, SIDE))
    return data_uri(jpeg(small, quality=85), "jpeg")
