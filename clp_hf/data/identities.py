"""What tells an image of an evaluation from all others, in whatever run and on whatever machine: its content."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import PurePath

from .dataset import ImageClassificationDataset


def image_identities(dataset: object, size: int) -> tuple[list[str], list[str]]:
    """Identities and names of the images of an evaluated data set.

    Args:
        dataset: map-style. Of one that is no `ImageClassificationDataset` nothing but the order is known.
        size: the number of its images.

    Returns:
        What is the same for the same file, each once: an image that is there again is numbered. And what a person finds
        the image by: folder and name of its file where it has one, else its number from 0 on.
    """
    if not isinstance(dataset, ImageClassificationDataset):
        numbers = list(map(str, range(size)))
        return numbers, [f"image {number}" for number in numbers]
    seen: Counter[str] = Counter()
    identities, names = [], []
    for index, (digest, path) in enumerate(_files(dataset)):
        seen[digest] += 1
        identities.append(digest if seen[digest] == 1 else f"{digest}-{seen[digest]}")
        names.append("/".join(PurePath(path).parts[-2:]) if path else f"image {index}")
    return identities, names


def _files(dataset: ImageClassificationDataset) -> Iterator[tuple[str, str | None]]:
    """The digest of every encoded image, and its path where that is known."""
    for example in dataset.encoded.select_columns("image"):
        path, content = example["image"]["path"], example["image"]["bytes"]
        if content is None and os.path.isfile(path):
            with open(path, "rb") as file:
                content = file.read()
        yield hashlib.blake2b(str(path).encode() if content is None else content, digest_size=8).hexdigest(), path
