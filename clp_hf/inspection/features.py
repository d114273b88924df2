"""What a frozen, pretrained backbone sees in small images, and in their backgrounds alone."""

from __future__ import annotations

import logging
import tempfile

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import TrainingArguments

from ..causal import CausalAugmentation, Role
from ..causal.infills import tile
from ..causal.masks import maskable, prepare_masks
from ..features import extract_features
from ..features.causal import CausalImages
from ..modeling.loading import load_image_classifier, warn_of_random_features
from ..modeling.preprocessing import image_settings, load_image_processor
from .photos import SIDE

logger = logging.getLogger(__name__)

BORDER = 0.125  # of each side: what counts as background where nothing says what the object is
GRID = 8  # cells in each direction, of pixel statistics
PIXEL_STATISTICS = "pixel statistics"


class Backbone:
    """Features of images and of their backgrounds, by a pretrained model, or by pixel statistics where there is none.

    Args:
        name: of the model, as for `load_image_classifier`.
        **hub_kwargs: for it.

    Attributes:
        title: what the features are of; `PIXEL_STATISTICS` where no pretrained weights could be had.
    """

    def __init__(self, name: str, **hub_kwargs):
        self.title, self.model = name, None
        warn_of_random_features(name)
        try:
            self.model = load_image_classifier(name, image_size=SIDE, **hub_kwargs)
        except ConnectionError as error:
            self.title = PIXEL_STATISTICS
            logger.warning(f"{error} Images are compared by {PIXEL_STATISTICS}, which see little.")
            return
        processor = load_image_processor(name, self.model, image_size=SIDE, **hub_kwargs)
        self.settings = image_settings(self.model, processor)

    def whole(self, pixels: np.ndarray) -> np.ndarray:
        """Features (n, d) of images (n, SIDE, SIDE, 3), uint8."""
        if self.model is None:
            return _statistics(_unit(pixels))
        return self._extract(_Images(pixels, None, self.settings))

    def background(self, pixels: np.ndarray, masks: np.ndarray) -> np.ndarray:
        """Features (n, d) of what lies outside the boxes around the objects, tiled over them.

        A box and not the outline, which would tell the object.

        Args:
            pixels: (n, SIDE, SIDE, 3) uint8.
            masks: (n, SIDE, SIDE) uint8, each with foreground and background, as `has_background` says.
        """
        if self.model is None:
            images, regions = _unit(pixels), prepare_masks(_unit(masks[..., None]))
            return _statistics(torch.where(regions > 0, tile(images, regions, torch.Generator()), images))
        images = _Images(pixels, masks, self.settings)
        augmentation = CausalAugmentation(["tile"], [], self.settings.mean, self.settings.std)
        return self._extract(CausalImages(images, augmentation, Role.COUNTERFACTUAL))

    def _extract(self, images: Dataset) -> np.ndarray:
        with tempfile.TemporaryDirectory() as folder:
            args = TrainingArguments(
                folder, per_device_eval_batch_size=64, report_to=[], disable_tqdm=True, dataloader_pin_memory=False
            )
            return extract_features(self.model, images, args).features.numpy()


def border_masks(count: int) -> np.ndarray:
    """(count, SIDE, SIDE) uint8: all but the borders is foreground."""
    mask, edge = np.zeros((SIDE, SIDE), np.uint8), round(BORDER * SIDE)
    mask[edge:-edge, edge:-edge] = 255
    return np.broadcast_to(mask, (count, SIDE, SIDE))


def has_background(masks: np.ndarray) -> np.ndarray:
    """(n,) bool: whether there is something inside and outside of the box around the foreground."""
    return maskable(prepare_masks(_unit(masks[..., None]))).numpy()


class _Images(Dataset):
    """Pixels and masks as items that a backbone takes; labels play no part."""

    def __init__(self, pixels: np.ndarray, masks: np.ndarray | None, settings):
        self.pixels, self.masks = pixels, masks
        self.mean, self.std = (torch.tensor(values).view(3, 1, 1) for values in (settings.mean, settings.std))

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> dict:
        item = {"pixel_values": (_unit(self.pixels[index][None])[0] - self.mean) / self.std, "labels": 0}
        if self.masks is not None:
            item["mask"] = _unit(self.masks[index][None, ..., None])[0]
        return item


def _unit(values: np.ndarray) -> Tensor:
    """uint8 (n, h, w, c) to float32 (n, c, h, w) in [0, 1]."""
    return torch.from_numpy(np.array(values)).permute(0, 3, 1, 2).float() / 255


def _statistics(images: Tensor) -> np.ndarray:
    """Mean colour and strength of edges in every cell of a grid: (n, 4 · GRID²) of (n, 3, h, w)."""
    grey = images.mean(1, keepdim=True)
    edges = (grey[..., 1:, 1:] - grey[..., :-1, 1:]).abs() + (grey[..., 1:, 1:] - grey[..., 1:, :-1]).abs()
    pooled = [torch.nn.functional.adaptive_avg_pool2d(part, GRID).flatten(1) for part in (images, edges)]
    return torch.cat(pooled, 1).numpy()
