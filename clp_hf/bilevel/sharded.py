"""What FSDP2 has spread over processes, whole again: the head is a small part of a network that no process holds.

Whatever gathers here is a message between processes: all of them have to ask for it.
"""

from __future__ import annotations

import torch.distributed as dist
from torch import Tensor, nn


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor of which each process holds a part (`DTensor`), without graph; any other as it is."""
    return tensor.detach().full_tensor() if hasattr(tensor, "full_tensor") else tensor


def is_sharded(module: nn.Module) -> bool:
    """Whether processes hold parts of its parameters; also while a forward pass has gathered them."""
    return bool(units(module)) or any(hasattr(parameter, "full_tensor") for parameter in module.parameters())


def units(module: nn.Module) -> list[nn.Module]:
    """Its parts, itself among them, that `fully_shard` was called with; none in a single process without a group."""
    if not (dist.is_available() and dist.is_initialized()):
        return []
    from torch.distributed.fsdp import FSDPModule  # costs time, and a PyTorch that can

    return [part for part in module.modules() if isinstance(part, FSDPModule)]


def reshard(module: nn.Module) -> None:
    """Have a module hold the parameters that its optimizer knows.

    FSDP2 leaves those of the outermost module gathered after a forward pass, for the backward pass that frees them. A
    pass without one would have the optimizer's next step go unseen.
    """
    for unit in units(module):
        unit.reshard()


def whole_copy(module: nn.Module) -> nn.Module:
    """A module with whole parameters, at their values now, and without the hooks by which FSDP gathers its own."""
    sharding = tuple({base for unit in units(module) for base in type(unit).__mro__[:2]})  # which FSDP put before it
    kind = next(kind for kind in type(module).__mro__ if not issubclass(kind, sharding))  # Linear, of FSDPLinear
    copy = kind.__new__(kind)
    nn.Module.__init__(copy)
    vars(copy).update({name: value for name, value in vars(module).items() if name not in vars(copy)})
    copy.training = module.training
    for name, parameter in module._parameters.items():
        own = None if parameter is None else nn.Parameter(whole(parameter).detach().clone(), parameter.requires_grad)
        copy.register_parameter(name, own)
    for name, buffer in module._buffers.items():
        copy.register_buffer(name, buffer)
    for name, child in module._modules.items():
        copy.add_module(name, whole_copy(child))
    return copy
