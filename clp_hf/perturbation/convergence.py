"""Ω judged at the head that training would end with, in the place of one step ahead."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ..bilevel import ConvergedHead, Hypergradient
from ..causal import meta_loss
from ..utils.precision import at_least_float32
from .base import MetaNetwork


def remember(
    head: ConvergedHead, features: Tensor, labels: Tensor, characteristics: Tensor, evidence: Tensor | None
) -> None:
    """Take in a training batch: all that the inner problem is made of, but for Ω itself.

    Args:
        head: remembers.
        features: (n, d), the input of the final linear layer.
        labels: (n,).
        characteristics: g, (n, k), and
        evidence: u_z, (n, …), the inputs of Ω.
    """
    head.memory.add(features=features, labels=labels, characteristics=characteristics, evidence=evidence)


def hypergradient_at_convergence(
    head: ConvergedHead, network: MetaNetwork, features: Tensor, labels: Tensor, counterfactual: Tensor
) -> tuple[Hypergradient, bool]:
    """The gradient in Ω of the meta loss at the head that remembered images, perturbed by Ω as it is now, lead to.

    Args:
        head: has remembered enough.
        network: Ω.
        features: of the meta images, (n, d), by the network as it is.
        labels, counterfactual: (n,), as of `causal.meta_loss`.

    Returns:
        As of `ConvergedHead.hypergradient`.
    """
    features = at_least_float32(features)

    def inner(memory: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        return network.inner_problem(network(memory["characteristics"], memory["labels"], memory.get("evidence")))

    def outer_loss(weight: Tensor, bias: Tensor) -> Tensor:
        return meta_loss(features @ weight.T + bias, labels, counterfactual)

    with torch.autocast(features.device.type, enabled=False):  # half precision solves no linear system
        return head.hypergradient(inner, outer_loss, list(network.parameters()))
