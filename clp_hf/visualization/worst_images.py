"""The images of every group that a classifier is most wrong about, and where it looks on them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.functional import to_pil_image
from transformers import PreTrainedModel, default_data_collator

from ..hub.predictions import Picture, Predictions
from ..utils.page import jpeg
from .grad_cam import Attribution, heat_overlay

MOST, MOST_OF_CELL = 48, 6  # pictures in all, and of a group
SIDE, QUALITY = 128, 82  # pixels of the longer side, and of JPEG
BATCH = 16


def worst_rows(predictions: Predictions) -> list[int]:
    """The rows of largest loss, as many of every group (class without groups), from the lowest accuracy up.

    At most six of each and 48 in all: of more than 48 groups those with the lowest accuracies have one each.
    """
    cells = predictions.labels if predictions.groups is None else predictions.groups
    present = np.unique(cells)
    accuracy = {cell: predictions.correct[cells == cell].mean() for cell in present}
    worst_first = sorted(present, key=accuracy.get)[:MOST]
    number = min(MOST_OF_CELL, MOST // len(worst_first))
    rows = [np.flatnonzero(cells == cell) for cell in worst_first]
    return [row for found in rows for row in found[np.argsort(-predictions.losses[found], kind="stable")[:number]]]


def add_pictures(predictions: Predictions, model: PreTrainedModel, dataset: Dataset) -> None:
    """Give predictions the pictures of their `worst_rows`, or say in `lacks` why they have no Grad-CAM.

    Args:
        predictions: of the data set, row by row.
        model: their classifier.
        dataset: map-style, with evaluation transforms.
    """
    explain, predictions.lacks = _overlays(model, dataset)
    rows = worst_rows(predictions)
    for start in range(0, len(rows), BATCH):
        part = [int(row) for row in rows[start : start + BATCH]]
        pixels = default_data_collator([dataset[row] for row in part])["pixel_values"]
        pictures = [to_pil_image(image) for image in _displayed(pixels, dataset)]
        overlays = explain(pixels, predictions.predicted[part], pictures) if explain else [None] * len(part)
        for row, picture, overlay in zip(part, pictures, overlays, strict=True):
            predictions.pictures[row] = Picture(_jpeg(picture), None if overlay is None else _jpeg(overlay))


def _overlays(model: PreTrainedModel, dataset: Dataset) -> tuple[Callable | None, str | None]:
    """What draws Grad-CAM over a batch of images; or None, and the reason."""
    device = next(model.parameters()).device
    try:
        attribution = Attribution(model, dataset[0]["pixel_values"][None].to(device))
    except ValueError as error:
        return None, f"no Grad-CAM: {error}"

    def explain(pixels: Tensor, classes: np.ndarray, pictures: list[Image.Image]) -> list[Image.Image]:
        maps, _ = attribution(pixels.to(device), torch.as_tensor(classes))
        return [heat_overlay(picture, heat) for picture, heat in zip(pictures, maps, strict=True)]

    return explain, None


def _displayed(pixels: Tensor, dataset: Dataset) -> Tensor:
    """Normalised images in [0, 1]: as they were where the data set knows its normalisation, else stretched to it."""
    transform = getattr(dataset, "transform", None)
    if hasattr(transform, "mean") and hasattr(transform, "std"):
        return (pixels * transform.std + transform.mean).clamp(0, 1)
    low, high = (extreme((1, 2, 3), keepdim=True) for extreme in (pixels.amin, pixels.amax))
    return (pixels - low) / (high - low).clamp(min=1e-6)


def _jpeg(picture: Image.Image) -> bytes:
    picture = picture.copy()
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    return jpeg(picture, QUALITY)
