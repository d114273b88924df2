"""A map-style torch data set that augments whole batches."""

from __future__ import annotations

import copy
import hashlib
import io
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import NamedTuple, TypeVar

import numpy as np
import PIL
import torch
import torchvision
import transformers
from datasets import Dataset, concatenate_datasets
from datasets import Image as ImageFeature
from PIL import ExifTags, Image, ImageOps

from .mask_values import box_mask, to_grey
from .own_files import check_own_files
from .pixels import ADVICE, UNREADABLE, extremes, is_deep, to_rgb, white_level

logger = logging.getLogger(__name__)

DECODER = ImageFeature()
CLEAN_LABEL = "clean_label"  # of an image whose `label` may be wrong
DRAFT = 2  # how many times the stored size a JPEG image has at least when it is resized
T = TypeVar("T")
SAMPLE = 1000  # images of a split, evenly spaced, that tell its sizes and depths


class _Kept(NamedTuple):
    pixels: torch.Tensor
    since: float  # seconds since the epoch, when the first file was opened


class ImageClassificationDataset(torch.utils.data.Dataset):
    """Images, labels and, where the columns exist, causal masks and groups, as items for a `Trainer`.

    Every image is decoded and resized once and kept as uint8, if the split then fits `memory_budget`; otherwise, and
    before `decode`, that is done at each access. `__getitems__`, which PyTorch's `DataLoader` calls with the indices of
    a batch, transforms the whole batch at once. Images are resized as the transform's image processor does it, if it
    has one (`ProcessorTransform`), and else are squeezed whole to `storage_size`; masks with them.

    Image modes: L, P, LA and CMYK are converted to RGB; transparent ones (RGBA, LA, P with transparency) are composited
    over white; 1-bit becomes black and white; integers of 16 and 32 bits and floats are scaled to 0 ... 255 by what is
    white in the whole split (`clp_hf.data.pixels.white_level`).

    Args:
        dataset: a split of `load_classification_dataset` (columns `image`, `label`, optionally `group` and `mask` or
            `box`); without labels for prediction alone. A mask that is missing (None) is an empty one.
        transform: `TrainTransform`, `PaddedCropTransform`, `EvalTransform`, or `ProcessorTransform`.
        name: of the split, for error messages.
        storage_size: (height, width) all images are squeezed to, antialiased, on decoding. By default it has the aspect
            ratio of the transform's output and is at most 4/3 as large (room for crops), or as the largest image is.
            Not for a `ProcessorTransform`, whose output is stored.
        memory_budget: bytes that decoded images and masks of this split may take.
        decode: now; else when `decode` is called, since it may be that nobody looks at the images: their features are
            known.

    Attributes:
        dataset: the split, for another data set of its images.
        weight: (n,), how often images are drawn with `train_sampling="weight"`, in proportion; None where nobody said.
        corruption: (C, C), the probability of the given label (column) where the true one is the row; likewise.

    Items: `pixel_values` float32 (3, H, W) normalised, `labels` int, and `mask` float32 (1, H, W) in [0, 1] and `group`
    int where there are such columns; `noisy`, whether `label` is another than `clean_label`, where there is that one.

    Raises:
        ValueError: an image or mask cannot be decoded, has values of which it is not sure what is white, or a mask has
            another size than its image; names the split and index. Raised by `decode` for a split kept in memory.
    """

    weight: torch.Tensor | None = None
    corruption: torch.Tensor | None = None

    def __init__(
        self,
        dataset: Dataset,
        transform: Callable,
        *,
        name: str = "dataset",
        storage_size: tuple[int, int] | None = None,
        memory_budget: int = 2 * 2**30,
        decode: bool = True,
    ):
        self.dataset = dataset = dataset.with_format(None)
        check_own_files(dataset, name)
        columns = [column for column in ("image", "mask", "box") if column in dataset.column_names]
        # Images are decoded here, not by `datasets`, so that a corrupt one can be named.
        self.encoded = dataset.select_columns(columns)
        for column in set(columns) - {"box"}:
            self.encoded = self.encoded.cast_column(column, ImageFeature(decode=False))
        self.transform, self.name = transform, name
        self.labels = torch.tensor(dataset["label"][:]) if "label" in dataset.column_names else None
        self.group = torch.tensor(dataset["group"][:]) if "group" in dataset.column_names else None
        has_noise = CLEAN_LABEL in dataset.column_names
        self.noisy = self.labels != torch.tensor(dataset[CLEAN_LABEL][:]) if has_noise else None
        self.has_mask = len(columns) > 1
        self._as_processor = hasattr(transform, "resize")
        self.storage_size = transform.size if self._as_processor else storage_size or self._default_storage_size()
        self.memory_budget = memory_budget
        self._kept: list[_Kept] = []  # at most one, which copies share
        if decode:
            self.decode()

    def decode(self) -> None:
        """Decode all images and keep them, where they fit and that was not done before, for its copies too."""
        channels, (height, width) = 3 + self.has_mask, self.storage_size
        if self.stored is None and len(self) * channels * height * width <= self.memory_budget:
            since = time.time()
            self._kept.append(_Kept(self._decode(range(len(self))), since))

    @property
    def stored(self) -> torch.Tensor | None:
        """What `decode` keeps, (n, 3 or 4, height, width) uint8; None where nothing is kept."""
        return self._kept[0].pixels if self._kept else None

    def __len__(self) -> int:
        return len(self.encoded)

    def __getitem__(self, index: int) -> dict:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict]:
        pixels = self._decode(indices) if self.stored is None else self.stored[torch.as_tensor(indices)]
        pixel_values, masks = self.transform(pixels[:, :3], pixels[:, 3:] if self.has_mask else None)
        columns = {"pixel_values": pixel_values}
        if self.has_mask:
            columns["mask"] = masks
        for name in ("labels", "group", "noisy"):
            if (values := getattr(self, name)) is not None:
                columns[name] = values[indices].tolist()
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    def learned(self, **facts: torch.Tensor | None) -> ImageClassificationDataset:
        """The same images with what was learned of them: `group`, `weight` or `corruption`; None leaves what there is.

        Raises:
            ValueError: as many groups or weights as images are expected.
        """
        other = copy.copy(self)
        for name, values in facts.items():
            if values is None:
                continue
            if name != "corruption" and len(values) != len(self):
                raise ValueError(f"{self.name} has {len(self)} images; found {name} of {len(values)}.")
            setattr(other, name, values)
        return other

    def seen_by(self, transform: Callable) -> ImageClassificationDataset:
        """The same images by a transform: these, where it is theirs; else for `decode` at a size that is its own."""
        if self.transform is transform:
            return self
        return ImageClassificationDataset(self.dataset, transform, name=self.name, decode=False)

    def joined(self, other: ImageClassificationDataset, name: str) -> ImageClassificationDataset:
        """Its images and those of another data set, in its own transform and with the columns that both have."""
        parts = [self.dataset, other.dataset]
        common = [column for column in parts[0].column_names if column in parts[1].column_names]
        joint = concatenate_datasets([part.select_columns(common) for part in parts])
        return ImageClassificationDataset(joint, self.transform, name=name, decode=self.stored is not None)

    def masks(self) -> Iterator[torch.Tensor]:
        """The mask of every image, (1, h, w) in [0, 1], as it is kept, or where images are not kept as it is stored."""
        if self.stored is not None:
            yield from (mask[3:].float() / 255 for mask in self.stored)
            return
        for index, example in enumerate(self.encoded):
            size = _by_header(example["image"], _upright_size) or self._open(index, "image", example["image"]).size
            yield torch.from_numpy(np.array(self._mask(index, example, size)))[None].float() / 255

    @property
    def fingerprint(self) -> str:
        """Differs where pixels, masks, labels, groups, storage size or transform do; pixels by what the files hold, and
        by the versions of what decodes and resizes them."""
        digest = hashlib.sha256(f"{PIL.__version__} {transformers.__version__} {torchvision.__version__}".encode())
        for part in (self.labels, self.group):
            digest.update(b"none" if part is None else part.numpy())
        changed = 0.0
        for example in self.encoded:
            columns = [(column, _file(column)) for column in example.values()]
            digest.update(repr([_content(*column) for column in columns]).encode())
            changed = max([changed, *(file.st_ctime for _, file in columns if file)])
        if self._kept and changed >= self._kept[0].since:  # what is kept is not what the files hold by now
            digest.update(self.stored.numpy())
        settings = {k: v.tolist() if isinstance(v, torch.Tensor) else v for k, v in vars(self.transform).items()}
        return f"{digest.hexdigest()} {self.storage_size} {type(self.transform).__name__} {settings}"

    def _sample(self) -> Iterator[tuple[int, dict]]:
        step = max(1, len(self) // SAMPLE)
        indices = range(0, len(self), step)
        return zip(indices, self.encoded.select(indices), strict=True)

    def _default_storage_size(self) -> tuple[int, int]:
        """Of the largest image, so that no other one, however small, costs it detail."""
        factor, room = 0.0, 4 / 3
        for _, example in self._sample():
            factor = max(factor, (_by_header(example["image"], _longer_side) or 0) / max(self.transform.size))
            if factor >= room:
                break
        factor = min(factor or room, room)
        return tuple(max(1, round(factor * side)) for side in self.transform.size)

    @cached_property
    def _white(self) -> dict[str, int]:
        """Which value is white in this split, by kind of deep images: integers and floats."""
        highest: dict[str, tuple[float, int]] = {}
        for index, example in self._sample():
            image = self._open(index, "image", example["image"])
            if is_deep(image):
                kind, (low, high) = image.mode[0], extremes(image)
                try:
                    white_level(kind, low, high)  # of which there is none for negative values
                except ValueError as error:
                    raise ValueError(f"{self.name}, index {index}: {error}") from error
                highest[kind] = max(highest.get(kind, (high, index)), (high, index))
        white = {kind: white_level(kind, 0, high) for kind, (high, _) in highest.items()}
        for kind, level in white.items():
            if level is None:
                high, index = highest[kind]
                raise ValueError(
                    f"{self.name}, index {index}: the largest value of all images of mode {kind} is {high:g}, which "
                    f"does not tell what is white: 1, 255, 4095 or 65535. {ADVICE}"
                )
        return white

    def _decode(self, indices: Sequence[int]) -> torch.Tensor:
        """(n, 3 or 4, height, width) uint8: RGB and, in the fourth channel, the mask."""
        pixels = torch.empty((len(indices), 3 + self.has_mask, *self.storage_size), dtype=torch.uint8)
        for row, (index, example) in enumerate(zip(indices, self.encoded.select(indices), strict=True)):
            image = self._open(index, "image", example["image"], self._draft_size)
            white = self._white.get(image.mode[0]) if is_deep(image) else None
            try:
                pixels[row, :3] = self._resized(to_rgb(image, white))
            except ValueError as error:
                raise ValueError(f"{self.name}, index {index}: {error}") from error
            if self.has_mask:
                pixels[row, 3:] = self._resized(self._mask(index, example, image.size))
        return pixels

    def _resized(self, image: Image.Image) -> torch.Tensor:
        """(3, height, width) uint8 of an RGB image, (1, height, width) of a mask."""
        if self._as_processor:
            return self.transform.resize(image)
        size = self.storage_size[::-1]
        if image.size != size:
            image = image.resize(size, Image.Resampling.BILINEAR, reducing_gap=3.0)
        return torch.from_numpy(np.atleast_3d(np.array(image)).transpose(2, 0, 1))

    def _mask(self, index: int, example: dict, size: tuple[int, int]) -> Image.Image:
        if "box" in example:
            return box_mask(example["box"], size)
        if example["mask"] is None:
            return Image.new("L", size)
        mask = self._open(index, "mask", example["mask"])
        if mask.size != size:
            raise ValueError(
                f"{self.name}, index {index}: the mask is {mask.size[0]} x {mask.size[1]} pixels, its image "
                f"{size[0]} x {size[1]} (width x height); they must be equal."
            )
        try:
            return to_grey(mask)
        except ValueError as error:
            raise ValueError(f"{self.name}, index {index}: the mask cannot be read: {error}") from error

    @property
    def _draft_size(self) -> int | None:
        """Pixels a side that resizing needs; None where it needs all.

        A processor is to see what it sees in use, and a mask is of the size of its image.
        """
        return None if self._as_processor or self.has_mask else DRAFT * max(self.storage_size)

    def _open(self, index: int, column: str, encoded: dict | None, draft_size: int | None = None) -> Image.Image:
        try:
            if encoded is None:
                raise ValueError("it is missing (None)")
            image = DECODER.decode_example(encoded) if draft_size is None else _drafted(encoded, draft_size)
            image.load()
        except UNREADABLE as error:
            raise ValueError(f"{self.name}, index {index}: the {column} cannot be decoded: {error}") from error
        if Image.MAX_IMAGE_PIXELS and image.width * image.height > Image.MAX_IMAGE_PIXELS:
            logger.warning("%s, index %d: the %s has %d × %d pixels.", self.name, index, column, *image.size)
        return image


def _by_header(encoded: dict | None, read: Callable[[Image.Image], T]) -> T | None:
    """What is read of an image that is opened, not decoded; None where it cannot be, which decoding will name."""
    try:
        with Image.open(_source(encoded)) as image:
            return read(image)
    except Exception:  # whatever PIL makes of a broken header; or a path within an archive
        return None


def _longer_side(image: Image.Image) -> int:
    return max(image.size)


def _upright_size(image: Image.Image) -> tuple[int, int] | None:
    """(width, height); None where it is turned and not square: that exchanges them in some formats before it is
    decoded, in others then. For this an oblong PNG file without such an entry at its beginning is decoded after all."""
    width, height = image.size
    return image.size if width == height or image.getexif().get(ExifTags.Base.Orientation, 1) == 1 else None


def _source(encoded: dict) -> str | io.BytesIO:
    return encoded["path"] if encoded["bytes"] is None else io.BytesIO(encoded["bytes"])


def _drafted(encoded: dict, side: int) -> Image.Image:
    """As `DECODER` gives it; a JPEG file at a half, a quarter or an eighth of its size, where that is `side` or more.

    A photo of 12 megapixels is decoded four times as fast so, and the resizing that follows sees enough of it.
    """
    if encoded["bytes"] is None and not os.path.isfile(encoded["path"] or ""):  # a path within an archive, or remote
        return DECODER.decode_example(encoded)
    with Image.open(_source(encoded)) as image:
        if image.format == "JPEG" and min(image.size) >= 2 * side:
            image.draft(None, (side, side))
        return ImageOps.exif_transpose(image)


def _content(value: object, file: os.stat_result | None) -> object:
    """Of an encoded image, and its file, what differs where the content does: its bytes' digest, or size and times of
    change, of which a copy may keep one."""
    if not isinstance(value, dict):
        return value
    if value["bytes"] is not None:
        return hashlib.sha256(value["bytes"]).hexdigest()
    return value["path"] if file is None else (value["path"], file.st_size, file.st_mtime_ns, file.st_ctime_ns)


def _file(value: object) -> os.stat_result | None:
    """Of an encoded image in a file of its own; None elsewhere."""
    if not isinstance(value, dict) or value["bytes"] is not None:
        return None
    try:
        return os.stat(value["path"] or "")
    except (OSError, ValueError):  # a path within an archive, or remote
        return None
