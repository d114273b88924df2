"""Invariant feature learning: an environment of every class's images that a network is less sure of."""

from __future__ import annotations

import torch
from torch import Tensor

from .base import Learned, Reference

HEAD = 0.8  # of a class, that is easy (the Pareto principle)
LEAST = 5  # images of a class that are told apart


def ifl(reference: Reference, *, scale: float = 4.0) -> Learned:
    """How often each image is drawn in the second of two environments, for the loss `invariant_features` (Tang et al.
    2022, "Invariant feature learning for generalized long-tailed classification", Algorithm 1).

    Inside a class attributes are long-tailed, and a network is surer of the frequent ones. The first environment has
    images as they are, the second in proportion to (1 − p)^β, p the probability of their class, brought to [0, 1] in
    every class, and β such that the fifth of the class with the smallest p is drawn `scale` times as often, per image,
    as the rest; classes are equally frequent there. Published, and in the code: 4, 1 ≤ β ≤ 10, and from epoch 60 of 100
    the environments of the same network. Here they are those of a first network that is stopped there, and a new one
    learns from both from the start.

    Args:
        reference: of the first network.
        scale: 1 or more.

    Raises:
        ValueError: `scale` is below 1.
    """
    if scale < 1:
        raise ValueError(f"scale is {scale}; expected 1 or more.")
    train = reference.train
    confidence = train.logits.double().softmax(1).gather(1, train.labels[:, None])[:, 0]
    weight = torch.zeros_like(confidence)
    for label in train.labels.unique():
        members = (train.labels == label).nonzero()[:, 0]
        weight[members] = class_weights(confidence[members], scale)
    told = f"A second environment was made of what the first network is less sure of ({100 * confidence.mean():.0f} % "
    return Learned(f"{told}the mean probability of the own class).", weight=weight.float())


def class_weights(confidence: Tensor, scale: float) -> Tensor:
    """The weights (n,), of sum one, of the images of one class by the probability (n,) of it."""
    number = len(confidence)
    doubt = confidence.max() - confidence
    if number < LEAST or doubt.max() <= 0:
        return torch.full_like(confidence, 1 / number)
    doubt = doubt / doubt.max() + 1e-5
    ordered = doubt.sort().values
    head, tail = ordered[: int(HEAD * number)].mean(), ordered[int(HEAD * number) :].mean()
    power = torch.log(torch.tensor(scale)) / (tail / head).log().clamp(min=1e-6)
    weights = doubt ** power.clamp(1, 10)
    return weights / weights.sum()
