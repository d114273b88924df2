"""A module evaluated at other parameters, and a random forward pass evaluated again with the same masks."""

from collections.abc import Callable, Mapping
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn

T = TypeVar("T")


def run_at(module: nn.Module, parameters: Mapping[str, Tensor], function: Callable[[], T]) -> T:
    """Run `function()` while `module` holds `parameters`, and clones of its own buffers.

    Inside, the module is called as usual; the module's own parameters and buffers are untouched, so the running
    statistics of batch normalisation do not move. A backward pass belongs inside `function` too: activation
    checkpointing calls the module again during backward, and must find the same parameters there.

    It does what `torch.func.functional_call` does, for any code that calls the module, without looking up every tensor
    by its name, and with one kernel for all buffers: a step of a deep network on a GPU waits for its host.

    Args:
        module: any module.
        parameters: new tensors for some or all of its parameters, by their name in `module.named_parameters()`.
        function: called without arguments.

    Returns:
        What `function` returns.
    """
    places, others, buffers = [], {}, {}
    for prefix, part in module.named_modules():
        for held in (part._parameters, part._buffers):
            for name, tensor in held.items():
                places.append((held, name, tensor))  # a shared one has several places, and one name
                if held is part._buffers and tensor is not None:
                    buffers[id(tensor)] = tensor
                elif (other := parameters.get(f"{prefix}.{name}" if prefix else name)) is not None:
                    others[id(tensor)] = other
    others |= _clones(buffers)
    places = [place for place in places if id(place[-1]) in others]
    for held, name, tensor in places:
        held[name] = others[id(tensor)]
    try:
        return function()
    finally:
        for held, name, tensor in places:
            held[name] = tensor


def _clones(tensors: Mapping[int, Tensor]) -> dict[int, Tensor]:
    clones = {key: torch.empty_like(tensor) for key, tensor in tensors.items()}
    for dtype in {tensor.dtype for tensor in tensors.values()}:  # one kernel copies all of a type
        keys = [key for key, tensor in tensors.items() if tensor.dtype == dtype]
        torch._foreach_copy_([clones[key] for key in keys], [tensors[key] for key in keys])
    return clones


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
