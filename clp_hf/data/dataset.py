"""A map-style torch data set that augments whole batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from datasets import Dataset
from datasets import Image as ImageFeature
from PIL import Image

from .mask_values import box_mask, to_grey
from .own_files import check_own_files

DECODER = ImageFeature()
CLEAN_LABEL = "clean_label"  # of an image whose `label` may be wrong


class ImageClassificationDataset(torch.utils.data.Dataset):
    """Images, labels and, where the columns exist, causal masks and groups, as items for a `Trainer`.

    Every image is decoded and resized once to `storage_size` and kept as uint8, if the split then fits `memory_budget`;
    otherwise it is decoded at each access. `__getitems__`, which PyTorch's `DataLoader` calls with the indices of a
    batch, transforms the whole batch at once.

    Image modes: L, P, LA and CMYK are converted to RGB; transparent ones (RGBA, LA, P with transparency) are composited
    over white; 1-bit becomes black and white; 16-bit and 32-bit integers are read as 0 ... 65535 and scaled to 0 ...
    255.

    Args:
        dataset: a split of `load_classification_dataset` (columns `image`, `label`, optionally `group` and `mask` or
            `box`).
        transform: `TrainTransform` or `EvalTransform`.
        name: of the split, for error messages.
        storage_size: (height, width) all images are squeezed to, antialiased, on decoding. By default it has the aspect
            ratio of the transform's output and is at most 4/3 as large (room for crops), or as the first image is.
        memory_budget: bytes that decoded images and masks of this split may take.

    Items: `pixel_values` float32 (3, H, W) normalised, `labels` int, and `mask` float32 (1, H, W) in [0, 1] and `group`
    int where there are such columns; `noisy`, whether `label` is another than `clean_label`, where there is that one.

    Raises:
        ValueError: an image or mask cannot be decoded, or a mask has another size than its image; names the split and
            index. Raised on construction for a split kept in memory.
    """

    def __init__(
        self,
        dataset: Dataset,
        transform: Callable,
        *,
        name: str = "dataset",
        storage_size: tuple[int, int] | None = None,
        memory_budget: int = 2 * 2**30,
    ):
        dataset = dataset.with_format(None)
        check_own_files(dataset, name)
        self._source = dataset._fingerprint
        columns = [column for column in ("image", "mask", "box") if column in dataset.column_names]
        # Images are decoded here, not by `datasets`, so that a corrupt one can be named.
        self.encoded = dataset.select_columns(columns)
        for column in set(columns) - {"box"}:
            self.encoded = self.encoded.cast_column(column, ImageFeature(decode=False))
        self.transform, self.name = transform, name
        self.labels = torch.tensor(dataset["label"][:])
        self.group = torch.tensor(dataset["group"][:]) if "group" in dataset.column_names else None
        has_noise = CLEAN_LABEL in dataset.column_names
        self.noisy = self.labels != torch.tensor(dataset[CLEAN_LABEL][:]) if has_noise else None
        self.has_mask = len(columns) > 1
        self.storage_size = storage_size or self._default_storage_size()
        channels = 3 + self.has_mask
        fits = len(dataset) * channels * self.storage_size[0] * self.storage_size[1] <= memory_budget
        self.stored = self._decode(range(len(dataset))) if fits else None

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict]:
        pixels = self._decode(indices) if self.stored is None else self.stored[torch.as_tensor(indices)]
        pixel_values, masks = self.transform(pixels[:, :3], pixels[:, 3:] if self.has_mask else None)
        columns = {"pixel_values": pixel_values, "labels": self.labels[indices].tolist()}
        if self.has_mask:
            columns["mask"] = masks
        for name in ("group", "noisy"):
            if (values := getattr(self, name)) is not None:
                columns[name] = values[indices].tolist()
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    def masks(self) -> Iterator[torch.Tensor]:
        """The mask of every image, (1, h, w) in [0, 1], as it is kept, or where images are not kept as it is stored."""
        if self.stored is not None:
            yield from (mask[3:].float() / 255 for mask in self.stored)
            return
        for index, example in enumerate(self.encoded):
            size = self._open(index, "image", example["image"]).size
            yield torch.from_numpy(np.array(self._mask(index, example, size)))[None].float() / 255

    @property
    def fingerprint(self) -> str:
        """Differs where images, labels, groups, storage size or transform do."""
        return f"{self._source} {self.storage_size} {type(self.transform).__name__} {vars(self.transform)}"

    def _default_storage_size(self) -> tuple[int, int]:
        factor = min(4 / 3, max(self._open(0, "image", self.encoded[0]["image"]).size) / max(self.transform.size))
        return tuple(round(factor * side) for side in self.transform.size)

    def _decode(self, indices: Sequence[int]) -> torch.Tensor:
        """(n, 3 or 4, height, width) uint8: RGB and, in the fourth channel, the mask."""
        height, width = self.storage_size
        pixels = np.empty((len(indices), height, width, 3 + self.has_mask), np.uint8)
        for row, (index, example) in enumerate(zip(indices, self.encoded.select(indices), strict=True)):
            image = self._open(index, "image", example["image"])
            pixels[row, ..., :3] = _resized(to_rgb(image), (width, height))
            if self.has_mask:
                pixels[row, ..., 3] = _resized(self._mask(index, example, image.size), (width, height))
        return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()

    def _mask(self, index: int, example: dict, size: tuple[int, int]) -> Image.Image:
        if "box" in example:
            return box_mask(example["box"], size)
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

    def _open(self, index: int, column: str, encoded: dict | None) -> Image.Image:
        try:
            if encoded is None:
                raise ValueError("it is missing (None)")
            image = DECODER.decode_example(encoded)
            image.load()
            return image
        except (OSError, SyntaxError, ValueError) as error:
            raise ValueError(f"{self.name}, index {index}: the {column} cannot be decoded: {error}") from error


def to_rgb(image: Image.Image) -> Image.Image:
    """Any PIL mode to RGB; transparency is composited over white, 16-bit values are scaled to 8 bits."""
    if image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return _to_8_bit(image).convert("RGB")


def _to_8_bit(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # PIL's own conversion would clip at 255
        return Image.fromarray((np.asarray(image, np.float64) / 257).round().clip(0, 255).astype(np.uint8))
    return image


def _resized(image: Image.Image, size: tuple[int, int]) -> np.ndarray:
    return np.asarray(image if image.size == size else image.resize(size, Image.Resampling.BILINEAR, reducing_gap=3.0))
