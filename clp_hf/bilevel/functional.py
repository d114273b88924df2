"""A module evaluated at other parameters, and a random forward pass evaluated again with the same masks."""

from collections.abc import Callable, Mapping
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn

T = TypeVar("T")


class _Call(nn.Module):
    """Gives `functional_call` a forward that runs any code on `module`, not only `module.forward`."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module

    def forward(self, function: Callable[[], T]) -> T:
        return function()


def run_at(module: nn.Module, parameters: Mapping[str, Tensor], function: Callable[[], T]) -> T:
    """Run `function()` while `module` holds `parameters`, and clones of its own buffers.

    Inside, the module is called as usual; the module's own parameters and buffers are untouched, so the running
    statistics of batch normalisation do not move. A backward pass belongs inside `function` too: activation
    checkpointing calls the module again during backward, and must find the same parameters there.

    Args:
        module: any module.
        parameters: new tensors for some or all of its parameters, by their name in `module.named_parameters()`.
        function: called without arguments.

    Returns:
        What `function` returns.
    """
    tensors = {f"module.{name}": buffer.clone() for name, buffer in module.named_buffers()}
    tensors |= {f"module.{name}": tensor for name, tensor in parameters.items()}
    return torch.func.functional_call(_Call(module), tensors, (function,))


class RandomState:
    """The state of the random number generators that a forward pass on `device` draws from, taken at construction."""

    def __init__(self, device: torch.device | str = "cpu"):
        device = torch.device(device)
        self._devices = [] if device.type == "cpu" else [device]
        self._device_type = device.type
        self._cpu = torch.get_rng_state()
        self._accelerator = None if device.type == "cpu" else getattr(torch, device.type).get_rng_state(device)

    @contextmanager
    def replayed(self):
        """Inside, draws repeat those made after this state was taken; afterwards the stream goes on as it was."""
        with torch.random.fork_rng(self._devices, device_type=self._device_type if self._devices else "cuda"):
            torch.set_rng_state(self._cpu)
            for device in self._devices:
                getattr(torch, self._device_type).set_rng_state(self._accelerator, device)
            yield
