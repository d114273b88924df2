"""What recent training batches left behind: features, labels and whatever else belongs to an image."""

from __future__ import annotations

import torch
from torch import Tensor

from ..utils.precision import at_least_float32


class FeatureMemory:
    """The latest images of training, each a row of every column, in float32 or better and without graph.

    Batches are kept as they came, and the oldest goes when the others are enough: a step copies nothing but itself.

    Args:
        size: how many images are remembered.

    Attributes:
        batches: never written to, only replaced.
    """

    def __init__(self, size: int):
        self.size = size
        self.batches: tuple[dict[str, Tensor], ...] = ()

    def add(self, **columns: Tensor | None) -> None:
        """Take in a batch: (n, …) by name, the same names every time; None for what there is nothing of."""
        batches = [*self.batches, {name: _kept(column) for name, column in columns.items() if column is not None}]
        while sum(map(_length, batches[1:])) >= self.size:
            del batches[0]
        self.batches = tuple(batches)

    def read(self) -> dict[str, Tensor]:
        """What is remembered, by name, the oldest image first.

        Images with a value that is not finite are left out; the training step told of them when they came.
        """
        names = self.batches[0] if self.batches else ()
        columns = {name: torch.cat([batch[name] for batch in self.batches])[-self.size :] for name in names}
        finite = [torch.isfinite(column).reshape(len(column), -1).all(1) for column in columns.values()]
        if not finite or (whole := torch.stack(finite).all(0)).all():
            return columns
        return {name: column[whole] for name, column in columns.items()}

    def state_dict(self) -> dict[str, Tensor]:
        """All that is remembered, on the CPU."""
        return {name: column.cpu() for name, column in self.read().items()}

    def load_state_dict(self, state: dict[str, Tensor], device: torch.device | str = "cpu") -> None:
        """Go on from `state_dict`, on a device."""
        self.batches = ({name: column.to(device) for name, column in state.items()},) if state else ()


def _kept(column: Tensor) -> Tensor:
    column = column.detach()
    # a copy, since a view would keep alive what it is a view of
    return (at_least_float32(column) if column.is_floating_point() else column).clone()


def _length(batch: dict[str, Tensor]) -> int:
    return len(next(iter(batch.values())))
