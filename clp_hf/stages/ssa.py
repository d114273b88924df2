"""Groups of all training images, spread from the few images of which they are known."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..bilevel import SoftmaxRegression
from .base import Learned, Reference

PARTS = 3  # of the training set: the groups of each are told by a predictor that has not learned from it


def ssa(reference: Reference, *, rounds: int = 5, threshold: float = 0.95, ridge: float = 1e-2) -> Learned:
    """Pseudo groups by Spread Spurious Attribute (Nam et al. 2022, "Spread spurious attribute: improving worst-group
    accuracy with spurious attribute estimation", section 3), which GroupDRO is then trained on.

    A predictor of the attribute learns from the images of known group, and from the training images as it labels them
    itself where it is sure: it has to be surer of frequent groups, so that no group gets more pseudo labels than the
    rarest has above the common threshold τ (their Eq. 4). The training set is cut into three parts, and each is told
    by a predictor that has learned from the others. Published: τ = 0.95, three parts.

    Taken instead of what is published: the predictor is linear on the features of a plainly trained network, and learns
    in rounds, where theirs is a network of its own that learns by steps, from weakly and strongly augmented images. It
    tells the groups, and of an image those of its own class alone, which is the attribute there. Of the images of known
    group none is held out.

    Args:
        reference: with a meta set of known groups, of every group.
        rounds: of pseudo labels, 1 or more.
        threshold: τ, a probability.
        ridge: of the predictor, in units of the mean squared length of a standardised feature vector.

    Raises:
        ValueError: a setting is out of range, or a class has no image of known group.
    """
    if rounds < 1 or not 0 < threshold < 1 or ridge <= 0:
        raise ValueError(
            f"rounds is {rounds}, threshold {threshold}, ridge {ridge}; expected 1 or more, a probability, above 0."
        )
    train, meta = reference.train, reference.meta
    mean, std = train.features.mean(0), train.features.std(0).clamp(min=1e-6)
    known, unknown = (((part.features - mean) / std) for part in (meta, train))
    names, known_groups = meta.groups.unique(return_inverse=True)
    owner = torch.zeros(len(names), dtype=torch.long).scatter(0, known_groups, meta.labels)
    possible = owner == train.labels[:, None]
    if missing := sorted(set(train.labels[~possible.any(1)].tolist())):
        told = ", ".join(reference.label_names[label] for label in missing)
        raise ValueError(f"SSA needs images of known group of every class; the meta set has none of {told}.")
    settings = int(rounds), threshold, ridge
    part = torch.randperm(len(train), generator=torch.Generator().manual_seed(reference.seed)) % PARTS
    groups = torch.empty(len(train), dtype=torch.long)
    for held_out in range(PARTS):
        others = part != held_out
        predict = _predictor(known, known_groups, len(names), unknown[others], possible[others], *settings)
        groups[~others] = names[predict(unknown[~others], possible[~others]).argmax(1)]
    sizes = torch.bincount(groups, minlength=len(reference.group_names)).tolist()
    told = ", ".join(f"{name} {size}" for name, size in zip(reference.group_names, sizes, strict=True) if size)
    return Learned(f"Groups were predicted of {len(meta)} known ones (images of each: {told}).", group=groups)


def pseudo_labels(probabilities: Tensor, threshold: float) -> Tensor:
    """Which of the images are labelled by themselves: of every group as many as of the rarest, the surest first.

    Args:
        probabilities: (n, G), of the groups.
        threshold: τ, that is asked of all.

    Returns:
        bool (n,).
    """
    sure, group = probabilities.max(1)
    number = int(torch.bincount(group[sure >= threshold], minlength=probabilities.shape[1]).min())
    chosen = torch.zeros(len(sure), dtype=torch.bool)
    for name in range(probabilities.shape[1]):
        members = (group == name).nonzero()[:, 0]
        chosen[members[sure[members].argsort(descending=True, stable=True)[:number]]] = True
    return chosen


def _predictor(
    known: Tensor,
    known_groups: Tensor,
    num_groups: int,
    unknown: Tensor,
    possible: Tensor,
    rounds: int,
    threshold: float,
    ridge: float,
) -> Callable[[Tensor, Tensor], Tensor]:
    """Learns from known groups and, in rounds, from its own labels of the others.

    Args:
        known, known_groups: (m, d) and (m,), of every group.
        num_groups: G.
        unknown, possible: (n, d), and bool (n, G): which groups an image may be of.
        rounds, threshold, ridge: as of `ssa`.

    Returns:
        A function like that of features and possible groups: to probabilities.
    """
    ridge = known.new_tensor([ridge * float(unknown.square().sum(1).mean())])

    def learned(rows: Tensor, groups: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        regression = SoftmaxRegression(rows, groups, num_groups)
        alike = len(groups) / num_groups / torch.bincount(groups, minlength=num_groups)
        head = regression.solve(rows.new_zeros(1, len(rows), num_groups), alike[groups][None].to(rows.dtype), ridge)

        def probabilities(features: Tensor, allowed: Tensor) -> Tensor:
            logits = features @ head.weight[0].T + head.bias[0]
            return logits.masked_fill(~allowed, -torch.inf).softmax(1)

        return probabilities

    predictor = learned(known, known_groups)
    for _ in range(rounds):
        found = predictor(unknown, possible)
        chosen = pseudo_labels(found, threshold)
        labels = torch.cat([known_groups, found[chosen].argmax(1)])
        predictor = learned(torch.cat([known, unknown[chosen]]), labels)
    return predictor
