"""Sums and averages over processes, for gradients that `DistributedDataParallel` does not see."""

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor


def all_reduce_sum(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The sum of every tensor over all processes, in one message; the same tensors in a single process."""
    tensors = list(tensors)
    if _processes() == 1:
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
    processes = _processes()
    return list(tensors) if processes == 1 else [total / processes for total in all_reduce_sum(tensors)]


def _processes() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
