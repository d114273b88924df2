"""What the training loss of Ω sees of a classifier, as it is, and as one tensor in which to differentiate."""

from __future__ import annotations

from torch import Tensor, nn

from ..losses import Outputs
from ..utils.precision import at_least_float32
from .base import MetaNetwork


def seen_by(network: MetaNetwork, head: nn.Module, logits: Tensor, features: Tensor) -> Tensor | Outputs:
    """The logits (n, C), or for a network that takes features these and the weight of the head too."""
    if not network.takes_features:
        return logits
    return Outputs(*map(at_least_float32, (logits, features, head.weight)))


def joined(seen: Tensor | Outputs) -> Tensor:
    """The logits, or all that is seen in one vector: Ω reaches the loss through each of it."""
    return seen.joined() if isinstance(seen, Outputs) else seen


def parted(tensor: Tensor, like: Tensor | Outputs) -> Tensor | Outputs:
    """The reverse, for what is seen of the same batch."""
    return like.parted(tensor) if isinstance(like, Outputs) else tensor


def detached(seen: Tensor | Outputs) -> Tensor | Outputs:
    """The same without graph."""
    return Outputs(*(part.detach() for part in seen)) if isinstance(seen, Outputs) else seen.detach()
