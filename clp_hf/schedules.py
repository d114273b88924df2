"""Schedules of what training images are drawn: which, and how often, depends on how much of the training is done."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from .utils.options import check_options, require


class Schedule:
    """What is drawn when. Its arguments are options: numbers, with the published defaults.

    Attributes:
        COLUMN: of the training set, that it goes by: `labels`, `group` or `weight`.
    """

    COLUMN = "labels"

    def begin(self, values: Tensor, generator: torch.Generator) -> None:
        """Before the first image: the column (N,) of the training set."""
        self.values = values

    def stage(self, done: float, generator: torch.Generator) -> tuple[Tensor, float]:
        """What is drawn from here on.

        Args:
            done: the share of the training that is done, in [0, 1).
            generator: source of the random numbers.

        Returns:
            Indices in the order in which they are drawn, once, and the share of the training where something else is
            to be drawn.
        """
        raise NotImplementedError


class ClassBalancedLate(Schedule):
    """All classes equally often in the last part of the training, before it every image once an epoch.

    Class-balanced fine-tuning (Cui et al. 2018, "Large scale fine-grained categorization and domain-specific transfer
    learning", section 3): after training on the long tail, fine-tuning on a balanced subset at a small learning rate.
    Theirs are two runs. This is one, whose end is fine-tuning where the learning rate has decayed by then.

    Args:
        start: the share of the training after which classes are balanced, in [0, 1].
    """

    def __init__(self, start: float = 0.8):
        require(0 <= start <= 1, "start", start, "a share of the training, in [0, 1]")
        self.start = start

    def stage(self, done: float, generator: torch.Generator) -> tuple[Tensor, float]:
        """As of `Schedule`."""
        if done < self.start:
            return torch.randperm(len(self.values), generator=generator), self.start
        _, place, counts = self.values.unique(return_inverse=True, return_counts=True)
        weights = 1 / counts.double()[place]
        return torch.multinomial(weights, len(weights), replacement=True, generator=generator), 1.0


class GroupExpansion(Schedule):
    """A subset with as many images of every group, which then grows.

    Progressive data expansion, PDE (Deng et al. 2023, "Robust learning with progressive data expansion against spurious
    correlation", Algorithm 1): of every group as many images as the smallest one has, for `warm_up` of the training;
    after that `added` images more, `expansions` times at equal distances, of the groups alike as long as they have any.
    Published, on Waterbirds: 140 of 300 epochs, 16 times 10 images; on CelebA 50 images. A pass is over what there is
    when it begins. Epochs are counted in images, and the learning rate follows the schedule of the run, so that the
    budget is that of every method.

    Args:
        warm_up: in [0, 1].
        expansions: 1 or more.
        added: images each time, 0 or more.
    """

    COLUMN = "group"

    def __init__(self, warm_up: float = 140 / 300, expansions: int = 16, added: int = 10):
        require(0 <= warm_up <= 1, "warm_up", warm_up, "a share of the training, in [0, 1]")
        require(expansions >= 1 and expansions == int(expansions), "expansions", expansions, "a whole number from 1")
        require(added >= 0 and added == int(added), "added", added, "a whole number from 0")
        self.warm_up, self.expansions, self.added = warm_up, int(expansions), int(added)

    def begin(self, values: Tensor, generator: torch.Generator) -> None:
        """As of `Schedule`; in which order images join is drawn once."""
        super().begin(values, generator)
        shuffled = torch.randperm(len(values), generator=generator)
        groups, place, counts = values[shuffled].unique(return_inverse=True, return_counts=True)
        ranks = torch.empty_like(shuffled)
        for group in range(len(groups)):
            ranks[place == group] = torch.arange(int(counts[group]))
        # the first image of each group, the second of each, …
        self.order = shuffled[ranks.argsort(stable=True)]
        self.balanced = len(groups) * int(counts.min())

    def stage(self, done: float, generator: torch.Generator) -> tuple[Tensor, float]:
        """As of `Schedule`."""
        size = self.balanced
        if done >= self.warm_up:
            begun = (done - self.warm_up) / max(1 - self.warm_up, 1e-9) * self.expansions
            size += min(int(begun) + 1, self.expansions) * self.added
        pool = self.order[:size]
        return pool[torch.randperm(len(pool), generator=generator)], 1.0


class TwoEnvironments(Schedule):
    """Images as they are and images by their weights, in turn: half of what is drawn is of each.

    Invariant feature learning (Tang et al. 2022, Algorithm 1, with two environments). An epoch has as many images as
    there are, so that it sees half of them as they are.
    """

    COLUMN = "weight"

    def stage(self, done: float, generator: torch.Generator) -> tuple[Tensor, float]:
        """As of `Schedule`."""
        half = (len(self.values) + 1) // 2
        natural = torch.randperm(len(self.values), generator=generator)[:half]
        weighted = torch.multinomial(self.values.double(), half, replacement=True, generator=generator)
        return torch.stack([natural, weighted], 1).flatten(), 1.0


SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "class_late": ClassBalancedLate,
    "expanding": GroupExpansion,
    "environments": TwoEnvironments,
}


def build_schedule(name: str, options: Mapping[str, Any] | None = None) -> Schedule:
    """The schedule of `SCHEDULES` with this name.

    Raises:
        ValueError: an unknown option, or a bad value.
    """
    check_options(name, inspect.signature(SCHEDULES[name]).parameters, options)
    return SCHEDULES[name](**options or {})
