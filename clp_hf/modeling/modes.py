"""Training and evaluation mode, and batch normalisation that keeps its running statistics."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn


@torch.no_grad()
def evaluate(module: nn.Module, pixels: Tensor) -> Any:
    """The module on pixels, in evaluation mode and without graph."""
    with evaluation_mode(module):
        return module(pixels)


def evaluation_mode(model: nn.Module) -> AbstractContextManager[None]:
    """`model.eval()` inside; afterwards every sub-module is in the mode it was in."""
    return _evaluating(list(model.modules()))


def evaluation_layers(model: nn.Module) -> AbstractContextManager[None]:
    """`evaluation_mode` of the layers alone: what holds them goes on to checkpoint activations, as in training."""
    return _evaluating([module for module in model.modules() if not any(module.children())])


@contextmanager
def _evaluating(modules: Sequence[nn.Module]) -> Iterator[None]:
    modes = [module.training for module in modules]
    for module in modules:
        module.training = False
    try:
        yield
    finally:
        for module, training in zip(modules, modes, strict=True):
            module.training = training


def freeze_batch_norm_statistics(model: nn.Module) -> int:
    """Make batch normalisation use its running statistics in train mode too, through every later `model.train()`.

    Its weight and bias still train.

    Returns:
        The number of layers.
    """
    layers = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    for layer in layers:
        if not _is_frozen(layer):
            layer.register_forward_pre_hook(_use_running_statistics)
    return len(layers)


def uses_batch_statistics(model: nn.Module) -> bool:
    """Whether a forward pass in train mode normalises by the statistics of its batch (and so needs two images)."""
    return any(
        isinstance(module, nn.modules.batchnorm._BatchNorm) and not _is_frozen(module) for module in model.modules()
    )


def _use_running_statistics(layer: nn.Module, args: tuple) -> None:
    layer.training = False


def _is_frozen(layer: nn.Module) -> bool:
    return _use_running_statistics in layer._forward_pre_hooks.values()
