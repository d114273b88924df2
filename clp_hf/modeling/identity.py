"""What a model is called, how large it is, and what tells it from another."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def height_width(image_size: int | tuple[int, int]) -> tuple[int, int]:
    """One number, or (height, width), as (height, width); a ValueError if one is not positive."""
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    if min(height, width) < 1:
        raise ValueError(f"image_size is {height} × {width} pixels; both have to be 1 or more.")
    return height, width


def architecture_name(model: nn.Module) -> str:
    """For messages: the class, and of a timm model its name there."""
    architecture = getattr(getattr(model, "config", None), "architecture", None)
    return f"{type(model).__name__} ({architecture})" if architecture else type(model).__name__


def model_fingerprint(model: nn.Module, without: Iterable[nn.Module] = ()) -> str:
    """A hexadecimal digest that differs where the architecture or a weight or buffer does; some may be left out.

    Args:
        model: any.
        without: layers of it, whose weights do not count.
    """
    digest, others = hashlib.sha256(repr(model).encode()), set(without)
    left_out = tuple(f"{name}." for name, module in model.named_modules() if module in others)
    for name, tensor in model.state_dict().items():
        if left_out and name.startswith(left_out):
            continue
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def label_names(model: PreTrainedModel) -> list[str]:
    """The names of a classifier's classes, in the order of its logits."""
    return [name for _, name in sorted(model.config.id2label.items())]


def parameter_count(model: nn.Module) -> int:
    """The number of weights, shared ones counted once."""
    return sum(parameter.numel() for parameter in model.parameters())
