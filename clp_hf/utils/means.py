"""Weighted means of what happens in a step, over all steps since they were last read and over all processes."""

from collections import Counter, defaultdict
from collections.abc import Callable

import torch
from torch import Tensor

from .precision import at_least_float32

MOST_WAITING = 100  # batches whose values wait for being counted by cell


class Means:
    """Sums and weights by name; hardly anything is read from the device before the means are taken."""

    def __init__(self):
        self._sums: dict[str, Tensor | float] = defaultdict(float)
        self._weights: dict[str, Tensor | float] = defaultdict(float)
        self._waiting: dict[str, list[tuple[Tensor, Tensor]]] = defaultdict(list)

    def add(self, name: str, total: Tensor, weight: Tensor | float = 1.0) -> None:
        """Take in a scalar, the sum of `weight` values."""
        self._sums[name] = self._sums[name] + total.detach()
        self._weights[name] = self._weights[name] + weight

    def add_each(self, name: str, values: Tensor, cells: Tensor) -> None:
        """Take in `values` (n,) under `name` and the number of each one's cell, in `cells` (n,)."""
        self._waiting[name].append((at_least_float32(values.detach()), cells))
        if len(self._waiting[name]) >= MOST_WAITING:
            self._count(name)

    def _count(self, name: str) -> None:
        values, cells = map(torch.cat, zip(*self._waiting.pop(name), strict=True))
        present, place, sizes = cells.unique(return_inverse=True, return_counts=True)
        totals = values.new_zeros(len(present)).index_add_(0, place, values)
        for cell, total, size in zip(present.tolist(), totals, sizes.tolist(), strict=True):
            self.add(f"{name}_{cell}", total, size)

    def add_where(self, name: str, values: Tensor, members: Tensor) -> None:
        """Take in those of `values` (n,) that are `members`, bool (n,)."""
        self.add(name, torch.where(members, at_least_float32(values), 0).sum(), members.sum())

    def keep(self) -> Callable[[], None]:
        """What it returns brings back what has been taken in until now."""
        waiting = {name: list(batches) for name, batches in self._waiting.items()}
        kept = dict(self._sums), dict(self._weights), waiting

        def bring_back():
            for own, old in zip((self._sums, self._weights, self._waiting), kept, strict=True):
                own.clear()
                own.update(old)

        return bring_back

    def take(self, gather: Callable[[list], list]) -> dict[str, float]:
        """The means by name, in alphabetical order, and begin anew.

        Args:
            gather: joins the lists of all processes.
        """
        for name in list(self._waiting):
            self._count(name)
        sums, weights = Counter(), Counter()
        own = [(name, float(total), float(self._weights[name])) for name, total in self._sums.items()]
        for process in gather([own]):
            for name, value, weight in process:
                sums[name] += value
                weights[name] += weight
        self._sums.clear()
        self._weights.clear()
        return {name: sums[name] / weights[name] for name in sorted(sums) if weights[name]}
