"""What can be said about an object without any model: it is near the centre, and the rim is background."""

from __future__ import annotations

import numpy as np

from ..utils.extras import require

CENTRE_SIDE = 0.7  # of the image's sides: half of its area
GRABCUT_SIDE = 0.9
GRABCUT_ITERATIONS = 5
GRABCUT_LEAST = 0.05  # of the pixels: less is taken for nothing


def centre_box(height: int, width: int, side: float = CENTRE_SIDE) -> list[int]:
    """The middle of an image, `side` of its height and of its width, in pixels: left, top, right, bottom."""
    left, top = round(width * (1 - side) / 2), round(height * (1 - side) / 2)
    return [left, top, width - left, height - top]


def grabcut(image: np.ndarray) -> np.ndarray:
    """What GrabCut (Rother et al. 2004; OpenCV) takes for foreground when told that the rim of the image is background.

    Args:
        image: (h, w, 3) uint8, RGB.

    Returns:
        bool (h, w); nowhere true where it takes less than 5 % of the pixels, or the image is too small or of too few
        colours to tell. The same for the same image.

    Raises:
        ImportError: no OpenCV.
    """
    cv2 = require("GrabCut", "cv2")
    height, width = image.shape[:2]
    left, top, right, bottom = centre_box(height, width, GRABCUT_SIDE)
    if (left, top, right, bottom) == (0, 0, width, height):  # no pixel is rim
        return np.zeros((height, width), bool)
    cv2.setRNGSeed(0)  # its mixtures start from k-means
    mask, models = np.zeros(image.shape[:2], np.uint8), (np.zeros((1, 65)), np.zeros((1, 65)))
    window = (left, top, right - left, bottom - top)
    try:
        cv2.grabCut(np.ascontiguousarray(image), mask, window, *models, GRABCUT_ITERATIONS, cv2.GC_INIT_WITH_RECT)
    except cv2.error:  # too few pixels or colours for its mixtures
        return np.zeros((height, width), bool)
    found = (mask == cv2.GC_FGD) | (mask == cv2.GC_PR_FGD)
    return found if found.mean() >= GRABCUT_LEAST else np.zeros_like(found)
