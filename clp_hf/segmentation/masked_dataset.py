"""A data set with masks made of one without: cached image by image, resumable, with a report and a contact sheet."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset, DatasetDict
from datasets import Image as ImageFeature
from datasets.table import embed_table_storage
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from ..causal.mask_report import check_masks
from ..causal.masks import check_mask_shape, mask_iou, prepare_masks
from ..data.dataset import DECODER, to_rgb
from ..data.loading import IMAGE_COLUMNS
from ..data.mask_values import to_grey
from ..data.pixels import UNREADABLE
from ..data.sources import read_splits
from ..utils.files import write_whole
from ..utils.locks import only_one
from .reports import REPORT, SplitReport, format_mask_report
from .segmenters import Segmenter, load_segmenter
from .sheet import contact_sheet

CACHE, DATA, STAGED, PREVIEW = ".masks", "data", ".staged", "preview"
CARD, SHEET = "README.md", "contact_sheet.png"
IMAGES_PER_FILE = 2000


@dataclass
class MaskArguments:
    """Which images, which segmenter, and where to."""

    dataset_name: str = field(metadata={"help": "A folder (images or parquet), a Hub name, or `embedded`."})
    dataset_config_name: str | None = field(default=None, metadata={"help": "Configuration of a Hub data set."})
    dataset_revision: str | None = field(
        default=None, metadata={"help": "Revision of a Hub data set; by default that of the segmenter, --revision."}
    )
    image_column: str | None = field(default=None, metadata={"help": "Column of the images; by default image or img."})
    true_mask_column: str | None = field(
        default=None, metadata={"help": "Column of true masks to compare with; by default mask, if there is one."}
    )
    output_dir: str | None = field(
        default=None, metadata={"help": "Folder of the new data set; by default the old one's name with -masks."}
    )
    segmenter: str = field(
        default="grabcut",
        metadata={"help": "grabcut, or a segmentation model of transformers: a Hub name or a folder."},
    )
    foreground: list[str] | None = field(
        default=None, metadata={"help": "Labels of the model that are foreground; by default all but `background`."}
    )
    matting_model: str | None = field(
        default=None, metadata={"help": "A VitMatte that refines the outlines, such as hustvl/vitmatte-small-dis-646."}
    )
    mask_shape: str = field(
        default="exact",
        metadata={
            "help": "exact, or box: the smallest box around the foreground. Training takes boxes of exact masks itself "
            "(its own mask_shape).",
            "choices": ["exact", "box"],
        },
    )
    batch_size: int = field(default=8, metadata={"help": "Images at a time."})
    max_images: int | None = field(
        default=None,
        metadata={
            "help": "Only so many images of every split, evenly spaced: report and sheet in `preview`, no data set."
        },
    )
    sheet_images: int = field(default=24, metadata={"help": "Images of every split on the contact sheet."})
    trust_remote_code: bool = field(default=False, metadata={"help": "Run model code from the Hub."})
    revision: str = field(default="main", metadata={"help": "Revision on the Hub, of segmenter and data set."})
    cache_dir: str | None = field(default=None, metadata={"help": "Where downloads are kept."})
    token: str | None = field(default=None, metadata={"help": "Hub token; by default the one of `hf auth login`."})

    def __post_init__(self):
        check_mask_shape(self.mask_shape)
        for name in ("batch_size", "max_images", "sheet_images"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, found {getattr(self, name)}.")
        if self.output_dir is None:
            path = Path(self.dataset_name)
            path = path.with_suffix("") if path.is_file() else path
            path = path.resolve() if path.name in ("", "..") else path  # "." has a name too
            self.output_dir = f"{path if path.exists() else path.name}-masks"


def make_masks(args: MaskArguments) -> dict[str, SplitReport]:
    """Make the masks of all splits, and a data set of the same columns and `mask`.

    In `output_dir`: parquet files, which `load_classification_dataset(output_dir)` and `--dataset_name` load; a card;
    `masks.json`, the report; `contact_sheet.png`; and, hidden, one PNG file for every image as the segmenter gave it,
    by fingerprints of image and segmenter. These are there complete or not at all and are never made twice: an
    interrupted run goes on where it was, and a changed image or setting gets new masks. The parquet files appear when
    all masks are there. With `max_images` report and sheet are all, in the folder `preview`. A column `mask` of the
    source is kept as `true_mask`.

    Returns:
        A report of every split.

    Raises:
        ValueError: no image column, an image that cannot be decoded (names split and index), a true mask of another
            size than its image, or an `output_dir` that holds data not made here or that another process works in.
        ConnectionError: the Hub cannot be reached.
    """
    with only_one(args.output_dir, "clp-hf masks", ".lock"):
        return _make_masks(args)


def _make_masks(args: MaskArguments) -> dict[str, SplitReport]:
    output = Path(args.output_dir)
    if (output / DATA).exists() and not (output / CACHE).exists():
        raise ValueError(f"{output} holds data that was not made by make_masks: choose another output_dir.")
    splits = read_splits(
        args.dataset_name,
        args.dataset_config_name,
        args.cache_dir,
        token=args.token,
        revision=args.dataset_revision or args.revision,
    )
    image_column, truth_column = _columns(splits, args)
    segmenter = load_segmenter(
        args.segmenter,
        foreground=args.foreground,
        matting_model=args.matting_model,
        trust_remote_code=args.trust_remote_code,
        revision=args.revision,
        cache_dir=args.cache_dir,
        token=args.token,
    )
    cache = MaskCache(output / CACHE, segmenter)
    masked, reports, sheet = {}, {}, _Sheet()
    for name, split in splits.items():
        chosen = _evenly(len(split), args.max_images)
        images = EncodedImages(split, image_column, name, chosen)
        cache.fill(images, args.batch_size)
        truths = EncodedImages(split, truth_column, name, chosen) if truth_column else None
        masks, ious, reports[name] = _finish(images, cache, truths, args.mask_shape)
        sheet.add(images, masks, ious, args.sheet_images)
        if args.max_images is None:
            masked[name] = _with_masks(split, masks)
    if args.max_images is None:
        write_splits(DatasetDict(masked), output)
    else:
        output = output / PREVIEW
        output.mkdir(exist_ok=True)
    sheet.picture().save(output / SHEET)
    settings = {key: value for key, value in asdict(args).items() if key not in ("token", "cache_dir", "output_dir")}
    report = {"settings": settings, "splits": {name: asdict(report) for name, report in reports.items()}}
    (output / REPORT).write_text(json.dumps(report, indent=2) + "\n")
    if args.max_images is None:
        (output / CARD).write_text(_card(settings, reports))
    return reports


class EncodedImages(Sequence):
    """Images of a column as they are stored: bytes for fingerprints, decoded on demand.

    Attributes:
        indices: of these images in the split.
        keys: SHA-256 of every image file's bytes.
    """

    def __init__(self, split: Dataset, column: str, name: str, indices: list[int]):
        self.name, self.column, self.indices = name, column, indices
        self.rows = split.select_columns(column).cast_column(column, ImageFeature(decode=False)).with_format(None)
        self.keys = [hashlib.sha256(self._bytes(position)).hexdigest() for position in range(len(indices))]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> Image.Image:
        content = self._bytes(position)
        try:
            image = DECODER.decode_example({"bytes": content, "path": None})
            image.load()
        except UNREADABLE as error:
            raise ValueError(f"{self.title(position)}: the {self.column} cannot be decoded: {error}") from error
        return image

    def title(self, position: int) -> str:
        """Split and index, for messages."""
        return f"{self.name}, index {self.indices[position]}"

    def _bytes(self, position: int) -> bytes:
        stored = self.rows[self.indices[position]][self.column]
        if stored is None:
            raise ValueError(f"{self.title(position)}: the {self.column} is missing (None).")
        return stored["bytes"] if stored["bytes"] is not None else Path(stored["path"]).read_bytes()


class MaskCache:
    """The masks of one segmenter, a PNG file for every image.

    Args:
        folder: of the caches of all segmenters.
        segmenter: makes what is missing.
    """

    def __init__(self, folder: Path, segmenter: Segmenter):
        self.folder = folder / hashlib.sha256(segmenter.fingerprint.encode()).hexdigest()[:16]
        self.segmenter = segmenter

    def path(self, key: str) -> Path:
        """Where the mask of the image with this key is, or would be."""
        return self.folder / key[:2] / f"{key}.png"

    def read(self, key: str) -> Image.Image:
        """The mask of an image, mode L."""
        return Image.open(self.path(key)).convert("L")

    def fill(self, images: EncodedImages, batch_size: int) -> None:
        """Make the masks that are missing, with a progress bar over all images."""
        missing = {key: position for position, key in enumerate(images.keys) if not self.path(key).exists()}
        todo = list(missing.values())
        title, made = f"masks of {images.name}", len(images) - len(todo)
        with tqdm(total=len(images), initial=made, desc=title, disable=None) as progress:
            for start in range(0, len(todo), batch_size):
                batch = todo[start : start + batch_size]
                masks = self.segmenter([to_rgb(images[position]) for position in batch])
                for position, mask in zip(batch, masks, strict=True):
                    with write_whole(self.path(images.keys[position])) as part:
                        part.write_bytes(_png(Image.fromarray(mask)))
                progress.update(len(batch))


def _columns(splits: DatasetDict, args: MaskArguments) -> tuple[str, str | None]:
    found = next(iter(splits.values())).column_names
    image = args.image_column or next((name for name in IMAGE_COLUMNS if name in found), IMAGE_COLUMNS[0])
    truth = args.true_mask_column or ("mask" if "mask" in found else None)
    for option, name in (("image_column", image), ("true_mask_column", truth)):
        if name is not None and name not in found:
            raise ValueError(f"There is no column {name!r}; the columns are {found}. Set {option} to one.")
    return image, truth


def _evenly(length: int, count: int | None) -> list[int]:
    """`count` indices of `length`, evenly spaced; all by default."""
    return np.linspace(0, length - 1, min(count or length, length)).round().astype(int).tolist()


def _with_masks(split: Dataset, masks: list[bytes]) -> Dataset:
    if "mask" in split.column_names:
        split = split.rename_column("mask", "true_mask")
    column = [{"path": None, "bytes": mask} for mask in masks]
    return split.add_column("mask", column, feature=ImageFeature())


def _finish(
    images: EncodedImages, cache: MaskCache, truths: EncodedImages | None, shape: str
) -> tuple[list[bytes], list[float], SplitReport]:
    """The final masks as PNG files, their IoU with the true ones, and the report of a split."""
    encoded, ious, box_ious, coverage, empty, full = [], [], [], [], [], []
    for position, key in enumerate(images.keys):
        mask = prepare_masks(_to_tensor(cache.read(key)), shape)
        if not check_masks(mask, shape).maskable:
            (full if mask.any() else empty).append(images.indices[position])
        coverage.append(mask.mean().item())
        encoded.append(_png(Image.fromarray(mask[0, 0].numpy() > 0)))
        if truths is not None:
            truth = _to_tensor(to_grey(truths[position]))
            if truth.shape != mask.shape:
                raise ValueError(
                    f"{images.title(position)}: the true mask is {truth.shape[3]} x {truth.shape[2]} pixels, its "
                    f"image {mask.shape[3]} x {mask.shape[2]} (width x height); they must be equal."
                )
            ious.append(mask_iou(mask, truth).item())
            box_ious.append(mask_iou(prepare_masks(mask, "box"), prepare_masks(truth, "box")).item())
    left_out = set(empty)
    found_ious = [iou for index, iou in zip(images.indices, ious, strict=False) if index not in left_out]
    quality = [float(np.mean(values)) if values else None for values in (ious, box_ious, found_ious)]
    return encoded, ious, SplitReport(len(images), empty, full, float(np.mean(coverage)), *quality)


class _Sheet:
    """Collects what the contact sheet shows: evenly spaced images of every split."""

    def __init__(self):
        self.images, self.masks, self.captions = [], [], []

    def add(self, images: EncodedImages, masks: list[bytes], ious: list[float], count: int) -> None:
        for position in _evenly(len(images), count):
            mask = Image.open(io.BytesIO(masks[position])).convert("L")
            found = f", IoU {ious[position]:.2f}" if ious else ""
            self.images.append(to_rgb(images[position]))
            self.masks.append(mask)
            index = images.indices[position]
            self.captions.append(f"{images.name} {index}{found if mask.getbbox() else ', nothing found'}")

    def picture(self) -> Image.Image:
        return contact_sheet(self.images, self.masks, self.captions)


def _to_tensor(mask: Image.Image) -> Tensor:
    """(1, 1, h, w) in [0, 1]."""
    return torch.from_numpy(np.array(mask))[None, None].float() / 255


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def write_splits(splits: DatasetDict, output: Path) -> None:
    """Replace the parquet files by those of `splits`, all at once."""
    staged = output / STAGED
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    for name, split in splits.items():
        count = math.ceil(len(split) / IMAGES_PER_FILE)
        for index in range(count):
            part = split.shard(count, index, contiguous=True).with_format("arrow")
            # to_parquet would write the paths of images that lie in files of their own
            part = part.map(embed_table_storage, batched=True, batch_size=100, keep_in_memory=True)
            part.to_parquet(staged / f"{name}-{index:05d}-of-{count:05d}.parquet")
    shutil.rmtree(output / DATA, ignore_errors=True)
    os.rename(staged, output / DATA)


def _card(settings: dict[str, Any], reports: dict[str, SplitReport]) -> str:
    """Who made the masks, and the report.

    Without `configs` in its metadata: `datasets` would cache the folder by these alone and give out old masks.
    """
    chosen = "\n".join(f"- `{key}`: {value}" for key, value in settings.items() if value not in (None, False))
    return (
        f"---\ntags:\n- clp_hf\n---\n\n# {Path(settings['dataset_name']).name} with masks\n\n"
        "The column `mask` was made by a model, not annotated: look at the contact sheet before trusting it.\n\n"
        f"![Masks]({SHEET})\n\n{format_mask_report(reports)}\n\n{chosen}\n"
    )
