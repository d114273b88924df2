"""What the methods on frozen features share: their result, the selection of a setting, and folding."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..features.feature_set import FeatureSet, Head

if TYPE_CHECKING:
    from sklearn.preprocessing import StandardScaler

Settings = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class HeadResult:
    """A linear head on the backbone's own features, and how it was chosen.

    Attributes:
        weight: (C, d) float32; with `bias` it replaces the model's head as it is, no standardisation to apply.
        bias: (C,) float32.
        settings: the chosen hyper-parameters.
        score: what they were chosen by, in [0, 1].
        rule: what `score` is, in words.
    """

    weight: Tensor
    bias: Tensor
    settings: dict[str, Any]
    score: float
    rule: str

    def logits(self, features: Tensor) -> Tensor:
        """(n, d) features to (n, C) logits."""
        return Head(self.weight, self.bias).logits(features)


def select(
    candidates: Iterable[tuple[Mapping[str, Any], Head]], judge: FeatureSet, on: str = "validation"
) -> HeadResult:
    """The candidate with the best worst group on `judge`, or worst class where it has no groups.

    A tie goes to the higher average, then to the earlier candidate.

    Args:
        candidates: settings and their head.
        judge: features the heads were not fitted on.
        on: what `judge` is called in the result's rule.

    Raises:
        ValueError: there is no candidate with finite weights.
    """
    best, best_key = None, None
    rule = f"{'worst-class' if judge.groups is None else 'worst-group'} accuracy on {on}"
    for settings, head in candidates:
        head = Head(*(part.float() for part in head))
        if not all(part.isfinite().all() for part in head):
            continue
        key = head.accuracy(judge)
        if best is None or key > best_key:
            best, best_key = HeadResult(*head, dict(settings), key[0], rule), key
    if best is None:
        raise ValueError("No setting gave a head with finite weights: give one or more, less extreme.")
    return best


def fold(weight: np.ndarray, bias: np.ndarray, scaler: StandardScaler) -> Head:
    """The head on the original features that equals `weight` (C, d) and `bias` (C,) on standardised ones.

    One row of a binary scikit-learn model, the log-odds of class 1, becomes two: minus and plus half of it.
    """
    if len(weight) == 1:
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    weight = weight / scaler.scale_
    return Head(torch.from_numpy(weight), torch.from_numpy(bias - weight @ scaler.mean_))


def standardiser(train: FeatureSet) -> StandardScaler:
    """Mean and standard deviation of each training feature; a constant feature is only centred."""
    from sklearn.preprocessing import StandardScaler  # half a second to import, needed here only

    return StandardScaler().fit(train.features.numpy())


def check(train: FeatureSet, validation: FeatureSet, head: Head, settings: Settings, names: Sequence[str]) -> None:
    """Whether a method can work on these.

    Args:
        train, validation, head, settings: as every method takes them.
        names: the hyper-parameters that each setting must have.

    Raises:
        ValueError: feature sizes or numbers of classes differ, a set is empty, a class has no training sample, or the
            settings are not a list of dictionaries with the expected names.
    """
    shape = (train.num_classes, train.features.shape[1])
    found = {
        "training features": shape,
        "validation features": (validation.num_classes, validation.features.shape[1]),
        "head": tuple(head[0].shape),
    }
    if len(set(found.values())) > 1 or head[1].shape != shape[:1]:
        raise ValueError(
            f"Training features, validation features and head must be of one backbone; (classes, dimensions) are "
            f"{found}, the bias has shape {tuple(head[1].shape)}."
        )
    if not len(train) or not len(validation):
        raise ValueError(f"Empty feature set: {len(train)} training and {len(validation)} validation samples.")
    if wrong := sorted(set(range(train.num_classes)) ^ set(train.labels.tolist())):
        raise ValueError(
            f"Training labels must be every class 0 … {train.num_classes - 1} and no other; {wrong} are missing or "
            "outside."
        )
    if isinstance(settings, Mapping) or not len(settings) or any(set(setting) != set(names) for setting in settings):
        raise ValueError(f"settings must be a list of one dictionary or more with keys {list(names)}, got {settings}.")
