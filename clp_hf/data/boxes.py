"""Boxes around the object for images that have neither mask nor box, from where objects usually are."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from datasets import Dataset, Value
from datasets import Sequence as SequenceFeature

from .dataset import to_rgb

CENTRE_SIDE = 0.7  # of the image's sides: half of its area
GRABCUT_SIDE = 0.9
GRABCUT_ITERATIONS = 5
GRABCUT_LEAST = 0.05  # of the pixels: less is taken for nothing


def add_boxes(dataset: Dataset, method: str, *, image_column: str = "image") -> Dataset:
    """Add the column `box` (four floats, xyxy, pixels), as `load_classification_dataset` has it.

    Args:
        dataset: with images.
        method: `"centre"`: the middle of the image, half of its area. `"grabcut"`: the box of what GrabCut (Rother et
            al. 2004; OpenCV) takes for foreground when told that the rim of the image is background; the middle where
            it finds nothing or everything. The CLP paper used the boxes of mattes from a pretrained network. On 200
            images of birds with known masks, the intersection over union with the true box was 0.62 (centre) and 0.56
            (GrabCut) at 32 pixels, 0.63 and 0.72 at 128, where GrabCut takes 0.4 s an image.
        image_column: of the images.

    Raises:
        ValueError: an unknown method, or a column `box` already there.
        ImportError: `grabcut` without OpenCV.
    """
    if method not in METHODS:
        raise ValueError(f"method is {method!r}; choose one of {', '.join(METHODS)}.")
    if "box" in dataset.column_names:
        raise ValueError("The data set has a column 'box' already.")
    boxes = [METHODS[method](np.asarray(to_rgb(image))) for image in dataset.with_format(None)[image_column]]
    return dataset.add_column("box", boxes, feature=SequenceFeature(Value("float32")))


def _centre(image: np.ndarray, side: float = CENTRE_SIDE) -> list[float]:
    height, width = image.shape[:2]
    left, top = round(width * (1 - side) / 2), round(height * (1 - side) / 2)
    return [left, top, width - left, height - top]


def _grabcut(image: np.ndarray) -> list[float]:
    try:
        import cv2
    except ImportError as error:
        raise ImportError("GrabCut boxes need OpenCV: pip install 'clp-hf[vision]', or take centre boxes.") from error
    left, top, right, bottom = _centre(image, GRABCUT_SIDE)
    cv2.setRNGSeed(0)  # its mixtures start from k-means
    mask, models = np.zeros(image.shape[:2], np.uint8), (np.zeros((1, 65)), np.zeros((1, 65)))
    window = (left, top, right - left, bottom - top)
    cv2.grabCut(np.ascontiguousarray(image), mask, window, *models, GRABCUT_ITERATIONS, cv2.GC_INIT_WITH_RECT)
    rows, columns = np.nonzero((mask == cv2.GC_FGD) | (mask == cv2.GC_PR_FGD))
    if len(rows) < GRABCUT_LEAST * mask.size:
        return _centre(image)
    box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    return _centre(image) if box == [left, top, right, bottom] else [float(side) for side in box]


METHODS: dict[str, Callable[[np.ndarray], list[float]]] = {"centre": _centre, "grabcut": _grabcut}
