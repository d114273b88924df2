"""Weighted means of what happens in a step, over all steps since they were last read and over all processes."""

from collections import Counter, defaultdict
from collections.abc import Callable

from torch import Tensor

from .precision import at_least_float32


class Means:
    """Sums and weights by name; nothing is read from the device before the means are taken."""

    def __init__(self):
        self._sums: dict[str, Tensor] = defaultdict(float)
        self._weights: dict[str, float] = defaultdict(float)

    def add(self, name: str, total: Tensor, weight: float = 1.0) -> None:
        """Take in a scalar, the sum of `weight` values."""
        self._sums[name] = self._sums[name] + total.detach()
        self._weights[name] += weight

    def add_each(self, name: str, values: Tensor, cells: Tensor) -> None:
        """Take in `values` (n,) under `name` and the number of each one's cell, in `cells` (n,)."""
        present, place, sizes = cells.unique(return_inverse=True, return_counts=True)
        values = at_least_float32(values)
        totals = values.new_zeros(len(present)).index_add_(0, place, values)
        for cell, total, size in zip(present.tolist(), totals, sizes.tolist(), strict=True):
            self.add(f"{name}_{cell}", total, size)

    def add_where(self, name: str, values: Tensor, members: Tensor) -> None:
        """Take in those of `values` (n,) that are `members`, bool (n,); nothing where none is."""
        if members.any():
            self.add(name, values[members].sum(), int(members.sum()))

    def keep(self) -> Callable[[], None]:
        """What it returns brings back what has been taken in until now."""
        kept = dict(self._sums), dict(self._weights)

        def bring_back():
            for own, old in zip((self._sums, self._weights), kept, strict=True):
                own.clear()
                own.update(old)

        return bring_back

    def take(self, gather: Callable[[list], list]) -> dict[str, float]:
        """The means by name, in alphabetical order, and begin anew.

        Args:
            gather: joins the lists of all processes.
        """
        sums, weights = Counter(), Counter()
        for process in gather([[(name, float(self._sums[name]), self._weights[name]) for name in self._sums]]):
            for name, value, weight in process:
                sums[name] += value
                weights[name] += weight
        self._sums.clear()
        self._weights.clear()
        return {name: sums[name] / weights[name] for name in sorted(sums)}
