"""Losses and statistics in float32 or better, whatever the model computes in."""

import torch
from torch import Tensor

MOST_IN_A_ROW = 20  # steps that are not finite: a loss scaler that starts too high needs fewer


def at_least_float32(tensor: Tensor) -> Tensor:
    """Half precisions become float32; float64 stays."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


class NonFiniteError(ValueError):
    """Training met numbers that are not finite, and cannot go on."""


def unless_finite(loss: Tensor, *tensors: Tensor) -> Tensor:
    """`loss` as it is; with infinite or NaN gradients if a value of it or of `tensors` is not finite.

    So the gradient itself says that it is not to be used: to a loss scaler, to whoever looks at its norm, and through
    the average of gradients to all processes. No device is waited for.
    """
    finite = torch.stack([torch.isfinite(tensor).all() for tensor in (loss.detach(), *tensors)]).all()
    return loss * torch.where(finite, 1.0, torch.inf).to(loss.dtype)
