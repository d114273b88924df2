"""Images that are in a data set more than once: the same file, or to the eye the same picture."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from .photos import Photo

NEAR_BITS = 6  # of the 63 of a perceptual hash may differ,
NEAR_CORRELATION = 0.99  # and the small pictures, in grey, agree at least so much,
NEAR_DIFFERENCE = 10.0  # and differ at most so much in the mean, of 255
PLAIN = 4.0  # spread, of 255: pictures of one colour, whose hash says nothing
BLOCK, PAIRS = 4096, 1024  # compared at once: photos, and small pictures


def find_duplicates(photos: Sequence[Photo]) -> tuple[list[list[int]], list[list[int]]]:
    """Sets of photos that show the same.

    Two are the same to the eye where their perceptual hashes (the signs of 63 low frequencies) differ in few bits and
    their small pictures agree: other sizes, formats and compressions of one picture, but no other crop.

    Returns:
        Positions of photos, sorted: sets of the same file, and sets in which at least two files differ.
    """
    by_content = defaultdict(list)
    for index, photo in enumerate(photos):
        if photo.problem is None:
            by_content[photo.digest].append(index)
    exact = [same for same in by_content.values() if len(same) > 1]
    first = [same[0] for same in by_content.values() if photos[same[0]].spread > PLAIN]
    return exact, _joined(_near_pairs(photos, first), {same[0]: same for same in by_content.values()})


def duplicate_clusters(photos: Sequence[Photo], duplicates: Sequence[Sequence[int]]) -> np.ndarray:
    """(n,) the number of the set that each photo belongs to; one of its own where it is in none.

    Args:
        photos: n of them.
        duplicates: sets of positions.
    """
    clusters = np.arange(len(photos))
    for same in duplicates:
        clusters[np.isin(clusters, clusters[same])] = clusters[same].min()
    return clusters


def _near_pairs(photos: Sequence[Photo], chosen: list[int]) -> list[tuple[int, int]]:
    if len(chosen) < 2:
        return []
    signs = np.stack([photos[index].hash for index in chosen]).astype(np.float32) * 2 - 1
    bits = signs.shape[1]
    small = np.stack([photos[index].small for index in chosen]).reshape(len(chosen), -1, 3)
    pairs = []
    for top in range(0, len(chosen), BLOCK):
        for left in range(top, len(chosen), BLOCK):
            close = signs[top : top + BLOCK] @ signs[left : left + BLOCK].T >= bits - 2 * NEAR_BITS
            here, there = np.nonzero(close)
            here, there = here + top, there + left
            keep = here < there
            pairs += _confirmed(small, here[keep], there[keep])
    return [(chosen[one], chosen[other]) for one, other in pairs]


def _confirmed(small: np.ndarray, here: np.ndarray, there: np.ndarray) -> list[tuple[int, int]]:
    found = []
    for start in range(0, len(here), PAIRS):
        one, other = here[start : start + PAIRS], there[start : start + PAIRS]
        first, second = small[one].astype(np.float32), small[other].astype(np.float32)
        apart = np.abs(first - second).mean((1, 2))
        first, second = (values.mean(2) for values in (first, second))  # grey: compression spares it
        first, second = (values - values.mean(1, keepdims=True) for values in (first, second))
        scale = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
        alike = (first * second).sum(1) >= NEAR_CORRELATION * scale
        keep = alike & (apart <= NEAR_DIFFERENCE)
        found += zip(one[keep].tolist(), other[keep].tolist(), strict=True)
    return found


def _joined(pairs: list[tuple[int, int]], copies: dict[int, list[int]]) -> list[list[int]]:
    """Sets of what is connected by pairs, each with its exact copies."""
    home: dict[int, list[int]] = {}
    for one, other in pairs:
        first, second = home.setdefault(one, [one]), home.setdefault(other, [other])
        if first is not second:
            first += second
            for index in second:
                home[index] = first
    sets = {id(found): found for found in home.values()}
    return [sorted(copy for index in found for copy in copies[index]) for found in sets.values()]
