"""Bootstrap of accuracies: what other images of the same kinds, and other seeds, might have given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.random import Generator

from .scores import Scores

DRAWS = 2000
TAILS = (0.025, 0.975)
SEED = 0  # the same runs give the same page


@dataclass(frozen=True)
class Interval:
    """Of 95 %, in [0, 1] for accuracies and in [-1, 1] for their differences."""

    low: float
    high: float

    @property
    def without_zero(self) -> bool:
        """Whether a difference with this interval is told from none."""
        return self.low > 0 or self.high < 0


def intervals(runs: Sequence[Scores]) -> list[Interval]:
    """Of the mean accuracy over runs that differ by the seed: of every cell, of the worst cell, and of all images."""
    generator = np.random.default_rng(SEED)
    measures = resampled([runs], generator)
    return _between(measures, _seed_shares(len(runs), generator))


def differences(runs: Sequence[Scores], others: Sequence[Scores]) -> list[Interval]:
    """Of the mean accuracy of `runs` less that of `others`, in the same order.

    Args:
        runs, others: as many, in the order of their seeds, each on the images of its counterpart.
    """
    generator = np.random.default_rng(SEED)
    measures = resampled([runs, others], generator)
    gains = measures[..., : len(runs)] - measures[..., len(runs) :]
    return _between(gains, _seed_shares(len(runs), generator))


def resampled(sides: Sequence[Sequence[Scores]], generator: Generator) -> np.ndarray:
    """Accuracies over images drawn with replacement, as many of every cell as it has; the same for all on the same.

    The images of a cell on which the same runs are right are of one pattern: to draw images is to draw how often each
    pattern comes up, as exact, and as fast for many images as for few. Half an image is added to every pattern in which
    a side is right, or wrong, in all its runs (Agresti and Min 2005, for one seed): of a cell of few images, or whose
    images are all right, drawing them again alone would show no doubt at all.

    Args:
        sides: what is compared, each a list of runs that differ by the seed.
        generator: of random numbers.

    The worst of many cells that are about as bad is lower in draws than it is in the images: the draws of the worst are
    moved until their median is the lowest of the cells' medians, which moves nothing where one cell is the worst.

    Returns:
        (cells + 2, draws, runs of all sides), of every group (class without groups) with images in order of its index,
        of the worst of these, and of all images.
    """
    runs = [run for side in sides for run in side]
    added = np.array([np.repeat(right, [len(side) for side in sides]) for right in product((0, 1), repeat=len(sides))])
    cells = np.unique(np.concatenate([run.cells for run in runs]))
    drawn = np.full((len(cells) + 1, DRAWS, len(runs)), np.nan)
    for images in dict.fromkeys(run.images for run in runs):
        these = [number for number, run in enumerate(runs) if run.images == images]
        correct = np.stack([runs[number].correct for number in these], 1).astype(float)
        found = runs[these[0]].cells
        for row, inside in enumerate([*(found == cell for cell in cells), np.full(len(found), True)]):
            if size := inside.sum():
                patterns, counts = np.unique(correct[inside], axis=0, return_counts=True)
                patterns = np.concatenate([patterns, added[:, these]])
                weights = np.append(counts, np.full(len(added), 0.5))
                times = generator.multinomial(size, weights / weights.sum(), size=DRAWS)
                drawn[row][:, these] = times @ patterns / size
    of_cells, of_all = drawn[:-1], drawn[-1:]
    worst = np.nanmin(of_cells, 0)
    worst += np.nanmin(np.median(of_cells, 1), 0) - np.median(worst, 0)
    return np.concatenate([of_cells, worst[None].clip(0, 1), of_all])


def _seed_shares(number: int, generator: Generator) -> np.ndarray:
    """(draws, number), how much each of several seeds counts where they are drawn with replacement too."""
    return generator.multinomial(number, np.full(number, 1 / number), size=DRAWS) / number


def _between(values: np.ndarray, shares: np.ndarray) -> list[Interval]:
    """Of values (measures, draws, seeds); a seed without images in a cell has no part in that cell."""
    known = ~np.isnan(values)
    weights = np.where(known, shares, 0)
    totals = weights.sum(2)
    means = (np.nan_to_num(values) * weights).sum(2) / np.where(totals > 0, totals, np.nan)
    return [Interval(*map(float, np.nanquantile(draws, TAILS))) for draws in means]
