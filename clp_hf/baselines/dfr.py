"""Deep Feature Reweighting: the head is retrained on group-balanced validation features."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ..features.feature_set import FeatureSet, Head
from .head import HeadResult, Settings, check, fold, select, standardiser

# Kirichenko et al. 2023, the grid of the published code.
DEFAULT_SETTINGS = [{"C": strength} for strength in (1.0, 0.7, 0.3, 0.1, 0.07, 0.03, 0.01)]


def dfr(
    train: FeatureSet,
    validation: FeatureSet,
    head: Head,
    settings: Settings = DEFAULT_SETTINGS,
    seed: int = 0,
    *,
    num_draws: int = 10,
    fitted_on: str = "validation",
) -> HeadResult:
    """Deep Feature Reweighting on validation (Kirichenko et al. 2023, "Last layer re-training is sufficient").

    L1 logistic regression (one against the rest for more than two classes, as liblinear has it) on features
    standardised by the training set. The strength is chosen by the worst group of one half of validation, fitted on
    a group-balanced draw of the other half; then the heads of `num_draws` group-balanced draws of all of validation are
    averaged.

    Args:
        train: its features give mean and standard deviation, nothing else.
        validation: with groups.
        head: weight (C, d) and bias (C,) of the current head; only its shape is used.
        settings: dictionaries with `C`, scikit-learn's inverse strength of the penalty.
        seed: of the halves, the draws and the solver.
        num_draws: heads that are averaged, at least 1.
        fitted_on: what the set of `validation` is called, in words.

    Returns:
        `HeadResult`. Its score is that of the half-fit on the other half: the final head has seen all of validation.

    Raises:
        ValueError: the inputs do not fit together; validation has no groups, a group with one sample only, or lacks a
            class.
    """
    from sklearn.linear_model import LogisticRegression  # half a second to import, needed here only
    from sklearn.multiclass import OneVsRestClassifier

    check(train, validation, head, settings, ["C"])
    check_fitted(validation.labels, validation.groups, train.num_classes, fitted_on)
    if num_draws < 1:
        raise ValueError(f"num_draws must be at least 1, got {num_draws}.")
    rng = np.random.default_rng(seed)
    scaler = standardiser(train)
    # scikit-learn 1.8 asks for L1 by another name; 1.7 is the last release for Python 3.10.
    new_name = LogisticRegression().get_params().get("penalty", "deprecated") == "deprecated"
    l1 = {"l1_ratio": 1.0} if new_name else {"penalty": "l1"}

    def fit(samples: FeatureSet, setting) -> Head:
        model = LogisticRegression(**setting, **l1, solver="liblinear", max_iter=1000, random_state=seed)
        inputs, labels = scaler.transform(samples.features.numpy()), samples.labels.numpy()
        if train.num_classes == 2:
            models = [model.fit(inputs, labels)]
        else:
            models = OneVsRestClassifier(model).fit(inputs, labels).estimators_
        return fold(
            np.concatenate([model.coef_ for model in models]), np.concatenate([m.intercept_ for m in models]), scaler
        )

    first, second = _halves(validation.groups, rng)
    half = validation[first]
    half = half[_balanced(half.groups, rng)]
    chosen = select(
        ((setting, fit(half, setting)) for setting in settings),
        validation[second],
        on=f"the half of {fitted_on} samples it was not fitted on",
    )
    draws = [fit(validation[_balanced(validation.groups, rng)], chosen.settings) for _ in range(num_draws)]
    weight, bias = (torch.stack(parts).mean(0).float() for parts in zip(*draws, strict=True))
    return replace(chosen, weight=weight, bias=bias)


def check_fitted(labels: Tensor, groups: Tensor | None, num_classes: int, fitted_on: str, method: str = "DFR") -> None:
    """Whether DFR, or a method like it, can be fitted on these.

    Args:
        labels, groups: (n,).
        num_classes: C.
        fitted_on: what the set of them is called, in words.
        method: what the method is called.

    Raises:
        ValueError: they have no groups, a group with one sample only, or lack a class.
    """
    if groups is None:
        raise ValueError(
            f"{method} needs the group of every {fitted_on} sample; they have none. AFR works without groups."
        )
    if missing := sorted(set(range(num_classes)) - set(labels.tolist())):
        raise ValueError(f"{method} is fitted on the {fitted_on} set, which has no sample of the classes {missing}.")
    names, sizes = groups.unique(return_counts=True)
    if sizes.min() < 2:
        raise ValueError(
            f"{method} needs two samples of every group of the {fitted_on} set; groups {names[sizes < 2].tolist()} "
            "have a single one."
        )


def _members(groups: Tensor, rng) -> list[np.ndarray]:
    """The indices of each group, in random order."""
    return [rng.permutation(np.flatnonzero(groups.numpy() == group)) for group in groups.unique().tolist()]


def _halves(groups: Tensor, rng) -> tuple[Tensor, Tensor]:
    """Two halves with the same share of every group."""
    members = _members(groups, rng)
    halves = [m[: len(m) // 2] for m in members], [m[len(m) // 2 :] for m in members]
    return tuple(torch.from_numpy(np.concatenate(half)) for half in halves)


def _balanced(groups: Tensor, rng) -> Tensor:
    """As many indices of each group as the smallest has, drawn without replacement."""
    members = _members(groups, rng)
    smallest = min(map(len, members))
    return torch.from_numpy(np.concatenate([m[:smallest] for m in members]))
