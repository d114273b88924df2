"""Cross-validated heads on frozen features: what is said of an image by heads that have not seen its label."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..bilevel import SoftmaxRegression
from ..perturbation.evidence.on_features import class_weights

FOLDS = 5
RIDGE = 1e-3  # in units of the mean squared length of a standardised feature vector


def folds(labels: Tensor, seed: int) -> Tensor:
    """The fold of every image, (n,): as many as the rarest class has images, between two and five, stratified."""
    from sklearn.model_selection import StratifiedKFold  # half a second to import, needed here only

    count = int(torch.unique(labels, return_counts=True)[1].min().clamp(2, FOLDS))
    fold = torch.empty(len(labels), dtype=torch.long)
    splitter = StratifiedKFold(count, shuffle=True, random_state=seed)
    for number, (_, left_out) in enumerate(splitter.split(np.zeros(len(labels)), labels)):
        fold[left_out] = number
    return fold


class CrossValidatedHeads:
    """Heads that each leave out one fold, all classes alike; the views of an image are in one fold together.

    Args:
        views: of each training image, (n, d) each: the image itself, and itself before another background.
        labels: (n,).
        num_classes: C.
        fold: (n,).
        learn_from: bool (n,), by default all.

    Attributes:
        logits: (n, C), out of fold, the mean over the views, with zero mean over the classes.
    """

    def __init__(
        self,
        views: list[Tensor],
        labels: Tensor,
        num_classes: int,
        fold: Tensor,
        learn_from: Tensor | None = None,
    ):
        self.mean, self.std = views[0].mean(0), views[0].std(0).clamp(min=1e-6)
        inputs = [self._standardised(view) for view in views]
        learn_from = torch.ones_like(labels, dtype=torch.bool) if learn_from is None else learn_from
        weights = torch.zeros(len(labels))
        weights[learn_from] = class_weights(labels[learn_from], num_classes)
        number = torch.arange(int(fold.max()) + 1)
        weights = (weights * (fold != number[:, None])).repeat(1, len(views))
        together = torch.cat(inputs)
        regression = SoftmaxRegression(together, labels.repeat(len(views)), num_classes)
        ridge = together.new_full((len(number),), RIDGE * float(together.square().sum(1).mean()))
        offsets = weights.new_zeros(*weights.shape, num_classes)
        self.heads = regression.solve(offsets, weights, ridge, tolerance=1e-3)
        every = torch.stack([self._logits(view) for view in inputs]).mean(0)
        self.logits = _centred(every[fold, torch.arange(len(labels))])

    def __call__(self, features: Tensor) -> Tensor:
        """Of images that no head has seen, (m, C): the mean over the heads."""
        return _centred(self._logits(self._standardised(features)).mean(0))

    def _standardised(self, features: Tensor) -> Tensor:
        return (features - self.mean) / self.std

    def _logits(self, inputs: Tensor) -> Tensor:
        """(K, n, C)."""
        return inputs @ self.heads.weight.mT + self.heads.bias[:, None]


def told_above_chance(logits: Tensor, labels: Tensor) -> float:
    """How well logits (n, C) tell the labels: 0 is chance and 1 all of them, every class counting the same."""
    classes = labels.unique()
    right = logits.argmax(1) == labels
    accuracy = torch.stack([right[labels == label].float().mean() for label in classes]).mean().item()
    return (accuracy - 1 / len(classes)) / (1 - 1 / len(classes))


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Of the own class above the best other one, (n,)."""
    own = logits.gather(1, labels[:, None])[:, 0]
    return own - best_other(logits, labels).values


def best_other(logits: Tensor, labels: Tensor) -> torch.return_types.max:
    """The largest logit but that of the label, and whose it is."""
    return logits.scatter(1, labels[:, None], -torch.inf).max(1)


def _centred(logits: Tensor) -> Tensor:
    return logits - logits.mean(-1, keepdim=True)
