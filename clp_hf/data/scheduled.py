"""Training images drawn by a schedule, a function of seed and epoch."""

from collections.abc import Iterator
from math import ceil

import torch
from torch.utils.data import Sampler

from ..schedules import Schedule
from .frequencies import needed_column
from .seeding import SeededDataset


class ScheduledSampler(Sampler[int]):
    """As many indices an epoch as there are images, drawn by a schedule; a function of seed and epoch.

    Args:
        schedule: what is drawn when.
        dataset: the training set, which knows the epoch.
        images: that are drawn in the whole training, by all processes.
        seed: of the run.

    Raises:
        ValueError: the data set lacks the column that the schedule goes by.
    """

    def __init__(self, schedule: Schedule, dataset: SeededDataset, images: float, seed: int):
        self.schedule, self.dataset, self.images, self.seed = schedule, dataset, images, seed
        values = torch.as_tensor(needed_column(dataset.dataset, schedule.COLUMN))
        schedule.begin(values, torch.Generator().manual_seed(seed))

    def __len__(self) -> int:
        return len(self.dataset)

    def __iter__(self) -> Iterator[int]:
        epoch, length = self.dataset.epoch, len(self)
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch + 1)
        drawn, before = 0, epoch * length
        while drawn < length:
            done = (before + drawn) / self.images
            order, until = self.schedule.stage(min(done, 1.0), generator)
            left = max(ceil(until * self.images - (before + drawn)), 1) if done < until else length
            order = order[: min(left, length - drawn)].tolist()
            yield from order
            drawn += len(order)
