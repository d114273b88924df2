"""Losses and statistics in float32 or better, whatever the model computes in."""

import torch
from torch import Tensor


def at_least_float32(tensor: Tensor) -> Tensor:
    """Half precisions become float32; float64 stays."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
