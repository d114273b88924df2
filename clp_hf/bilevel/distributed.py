"""Sums and averages over processes, for gradients that `DistributedDataParallel` does not see."""

from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor


def all_reduce_sum(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The sum of every tensor over all processes, in one message; the same tensors in a single process."""
    tensors = list(tensors)
    if world_size() == 1:
        return tensors
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    dist.all_reduce(flat)
    parts = flat.split([tensor.numel() for tensor in tensors])
    return [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)]


def all_reduce_mean(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The mean of every tensor over all processes, in one message; the same tensors in a single process.

    `autograd.grad` bypasses the hooks by which DDP averages gradients, so whatever it returns is averaged here. With
    equal batches, means of means are the gradient of the joint batch.
    """
    processes = world_size()
    return list(tensors) if processes == 1 else [total / processes for total in all_reduce_sum(tensors)]


def all_gather_rows(tensors: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Tensors (n, …) of all processes, joined in their order; n may differ, and None stays None.

    This process's own rows keep their graph, those of others have none.
    """
    tensors = list(tensors)
    if world_size() == 1:
        return tensors
    first = next(tensor for tensor in tensors if tensor is not None)
    sizes = torch.zeros(world_size(), dtype=torch.long, device=first.device)
    sizes[rank()] = len(first)
    dist.all_reduce(sizes)
    start, total = int(sizes[: rank()].sum()), int(sizes.sum())
    return [None if tensor is None else _among_others(tensor, start, total) for tensor in tensors]


def _among_others(tensor: Tensor, start: int, total: int) -> Tensor:
    joined = tensor.new_zeros(total, *tensor.shape[1:])
    joined[start : start + len(tensor)] = tensor.detach()
    dist.all_reduce(joined)
    return torch.cat([joined[:start], tensor, joined[start + len(tensor) :]])


def of_joint_rows(function: Callable[..., Tensor], *rows: Tensor | None) -> Tensor:
    """A scalar function of the rows of all processes, such that DDP's mean of gradients is the gradient of it.

    Args:
        function: of `rows`, joined as by `all_gather_rows`.
        *rows: tensors (n, …), or None.
    """
    value = function(*all_gather_rows(rows))
    # Every process has the gradient by its own rows: their sum is wanted, of which DDP takes the mean.
    return value + (world_size() - 1) * (value - value.detach())


def world_size() -> int:
    """The number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0
