"""Which images a meta set holds, and in which role and order they are drawn."""

import enum
import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from torch import Tensor


class Role(enum.IntEnum):
    """What a meta image is used as."""

    ORIGINAL = 0
    COUNTERFACTUAL = 1
    FACTUAL = 2


def select_meta_indices(
    labels: Sequence[int] | np.ndarray | Tensor,
    per_cell: int = 10,
    groups: Sequence[int] | np.ndarray | Tensor | None = None,
    *,
    num_classes: int | None = None,
    num_groups: int | None = None,
    exclude: Iterable[int] = (),
    with_replacement: bool = False,
    seed: int = 0,
) -> list[int]:
    """Draw a balanced meta set: the same number of images from every class or, with `groups`, from every group.

    A class or group, here a cell, with fewer images than asked gives each of them once (the set is then a little
    unbalanced) or, `with_replacement`, each of them and random repeats up to the number asked (balanced, but few
    images weigh much). Either way a warning names the cell and its count. A group without any image is left out, with
    the warning; a class without any is an error.

    Args:
        labels: `(n,)` integers of the pool.
        per_cell: images per cell.
        groups: `(n,)` integers; cells are groups if given.
        num_classes: classes are 0 … num_classes − 1; by default up to the largest label.
        num_groups: groups are 0 … num_groups − 1; by default the groups that occur.
        exclude: indices that must not be drawn, for example images that judge the model.
        with_replacement: repeat images of cells that are too small.
        seed: of the draw; the same arguments give the same indices.

    Returns:
        Indices into the pool, cell after cell, without repeats unless asked for.

    Raises:
        ValueError: a class is missing, labels or groups are not integers or out of range, or their lengths differ.
    """
    if per_cell < 1:
        raise ValueError(f"per_cell must be at least 1, found {per_cell}.")
    labels = _as_ids(labels, "labels", num_classes)
    available = np.ones(len(labels), dtype=bool)
    available[list(exclude)] = False
    num_classes = num_classes or labels.max() + 1
    missing = sorted(set(range(num_classes)) - set(labels[available].tolist()))
    if missing:
        raise ValueError(
            f"The meta set needs images of all {num_classes} classes; class {', '.join(map(str, missing))} has none "
            f"among the {available.sum()} images it may be drawn from. Draw it from another split, or pass a meta set."
        )
    kind, ids, cells = "class", labels, range(num_classes)
    if groups is not None:
        kind, ids = "group", _as_ids(groups, "groups", num_groups)
        if len(ids) != len(labels):
            raise ValueError(f"labels and groups must have the same length, found {len(labels)} and {len(ids)}.")
        cells = np.unique(ids).tolist() if num_groups is None else range(num_groups)

    rng = np.random.default_rng(seed)
    indices, short = [], []
    for cell in cells:
        candidates = rng.permutation(np.flatnonzero(available & (ids == cell)))
        chosen = candidates[:per_cell].tolist()
        if len(chosen) < per_cell:
            short.append(f"{kind} {cell} has {len(chosen)}")
            if with_replacement and chosen:
                chosen += rng.choice(candidates, per_cell - len(chosen)).tolist()
        indices += chosen
    if short:
        rule = (
            "repeated at random up to that number"
            if with_replacement
            else "each taken once, so the meta set is unbalanced"
        )
        warnings.warn(f"Fewer than {per_cell} images for the meta set: {', '.join(short)}; {rule}.", stacklevel=2)
    return indices


def _as_ids(values: Sequence[int] | np.ndarray | Tensor, name: str, count: int | None) -> np.ndarray:
    ids = np.asarray(values)
    if ids.ndim != 1 or len(ids) == 0 or ids.dtype.kind not in "iu":
        raise ValueError(f"{name} must be a non-empty list of integers, found {ids.dtype} of shape {ids.shape}.")
    if ids.min() < 0 or (count is not None and ids.max() >= count):
        raise ValueError(
            f"{name} must be in 0 … {'' if count is None else count - 1}, found {ids.min()} … {ids.max()}."
        )
    return ids


class MetaSampler:
    """Infinite batches of `(index, role)`, for the `batch_sampler` of a DataLoader over the meta set.

    In an epoch every image comes once as original, and `copies` times as counterfactual and as factual, as far as these
    roles are enabled; images that cannot be masked come as originals only. So M̂ images get 2·M̂ augmented ones, 1:1
    (section 4 of the CLP paper), or `copies` times as many, in an order drawn anew for each epoch. Batches are full and
    run on over the end of an epoch.

    Batch k is a function of the arguments and k alone. `state_dict` holds the number of batches handed out: with
    DataLoader workers that is ahead of the batches used, so the loop that uses them counts and restores
    `load_state_dict({"batches": used})`.

    Args:
        num_images: size of the meta set.
        batch_size: of the meta batches.
        roles: the enabled ones.
        maskable: bool per image, as of `check_masks`; by default all are.
        seed: of the order.
        copies: of every image in each role but the original, each augmented anew.
    """

    def __init__(
        self,
        num_images: int,
        batch_size: int,
        roles: Sequence[int] = tuple(Role),
        maskable: Sequence[bool] | Tensor | None = None,
        seed: int = 0,
        copies: int = 1,
    ):
        maskable = [True] * num_images if maskable is None else list(map(bool, maskable))
        if num_images < 1 or batch_size < 1:
            raise ValueError(f"Need at least one image and a batch size of 1, found {num_images} and {batch_size}.")
        if len(maskable) != num_images:
            raise ValueError(
                f"maskable must have one entry for each of the {num_images} images, found {len(maskable)}."
            )
        self.items = [
            (index, int(role))
            for role in roles
            for _ in range(1 if role == Role.ORIGINAL else copies)
            for index in range(num_images)
            if role == Role.ORIGINAL or maskable[index]
        ]
        if not self.items:
            raise ValueError("The meta set is empty: no image can take any of the enabled roles.")
        self.batch_size = batch_size
        self.seed = seed
        self.batches = 0

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        while True:
            self.batches += 1
            yield self.batch(self.batches - 1)

    def batch(self, number: int) -> list[tuple[int, int]]:
        """Batch `number`, counted from 0."""
        start, size = number * self.batch_size, len(self.items)
        stop = start + self.batch_size
        first_epoch = start // size
        orders = np.concatenate([self._order(epoch) for epoch in range(first_epoch, math.ceil(stop / size))])
        return [self.items[i] for i in orders[start - first_epoch * size : stop - first_epoch * size]]

    def _order(self, epoch: int) -> np.ndarray:
        return np.random.default_rng((self.seed, epoch)).permutation(len(self.items))

    def state_dict(self) -> dict[str, Any]:
        """Number of batches handed out."""
        return {"batches": self.batches}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue after that many batches."""
        self.batches = state["batches"]
