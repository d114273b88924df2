"""GroupDRO of the head: the worst training group decides."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor
from torch.nn import functional as F

from ..bilevel import SoftmaxRegression
from ..features.feature_set import FeatureSet, Head
from .head import HeadResult, Settings, check, fold, select, standardiser

# Adjustments of the published grid, 0 … 5 (Sagawa et al. 2020); penalties are ours, for standardised features.
DEFAULT_SETTINGS = [
    {"penalty": penalty, "adjustment": adjustment} for penalty in (1e-2, 1e-1, 1.0, 10.0) for adjustment in (0.0, 2.0)
]
TOLERANCE, MAX_STEPS = 1e-3, 300


def group_dro(
    train: FeatureSet, validation: FeatureSet, head: Head, settings: Settings = DEFAULT_SETTINGS, seed: int = 0
) -> HeadResult:
    """Retrain the head for its worst training group (GroupDRO, Sagawa et al. 2020) on standardised features.

    Solves

        min_θ max_q  Σ_g q_g (L_g(θ) + adjustment / √n_g) + penalty ‖θ‖²,

    q_g >= 0 of sum one, L_g the mean cross-entropy of group g and n_g its size, by exponentiated gradients:
    q_g is multiplied by exp(η (L_g + adjustment / √n_g)). The paper moves θ by one stochastic gradient for each step of
    q. A head is small enough to be retrained to the end instead. That makes q the only unknown, of a concave problem,
    so that η needs no tuning: it doubles, and halves where a step went too far. It ends where the worst group is within
    0.001 of the mean under q, and so the objective within 0.001 of the best.

    Args:
        train: with groups.
        validation: selects the setting; its groups are used where it has them.
        head: weight (C, d) and bias (C,) of the current head; only its shape is used.
        settings: dictionaries with `penalty` > 0 and `adjustment` >= 0, the paper's C, which favours small groups.
        seed: not used, the fit is deterministic.

    Returns:
        `HeadResult`, by worst group on validation (worst class without groups).

    Raises:
        ValueError: the inputs do not fit together, training has no groups, or a setting is out of range.
    """
    check(train, validation, head, settings, ["penalty", "adjustment"])
    for setting in settings:
        if setting["penalty"] <= 0 or setting["adjustment"] < 0:
            raise ValueError(f"penalty must be above 0, adjustment 0 or more, got {setting}.")
    if train.groups is None:
        raise ValueError(
            "GroupDRO needs the group of every training sample; they have none. DFR needs those of validation only."
        )
    scaler = standardiser(train)
    inputs = torch.from_numpy(scaler.transform(train.features.numpy())).float()

    regression = SoftmaxRegression(inputs, train.labels, train.num_classes)

    def fit(setting):
        weight, bias = _robust_head(regression, inputs, train.groups, **setting)
        return fold(weight.double().numpy(), bias.double().numpy(), scaler)

    return select(((setting, fit(setting)) for setting in settings), validation)


def _robust_head(
    regression: SoftmaxRegression, inputs: Tensor, groups: Tensor, penalty: float, adjustment: float
) -> Head:
    """Ascends the objective's minimum over θ, whose gradient in q is the groups' losses there."""
    _, groups, sizes = groups.unique(return_inverse=True, return_counts=True)
    members = F.one_hot(groups).to(inputs) / sizes
    none, ridge = inputs.new_zeros(1, *regression.targets.shape), inputs.new_tensor([2 * penalty])

    def solve(q, start=None):
        solution = regression.solve(none, len(inputs) * (members @ q)[None], ridge, start)
        logits = inputs @ solution.weight[0].T + solution.bias[0]
        return solution, F.cross_entropy(
            logits, regression.labels, reduction="none"
        ) @ members + adjustment / sizes.sqrt()

    q, rate = inputs.new_ones(len(sizes)) / len(sizes), 1.0
    solution, losses = solve(q)
    for _ in range(MAX_STEPS):
        if losses.max() - q @ losses <= TOLERANCE:
            break
        further = (q.clamp(min=torch.finfo(q.dtype).tiny).log() + rate * losses).softmax(0)
        there, losses_there = solve(further, solution)
        if losses_there @ (further - q) >= 0:  # still ascending on arrival
            q, solution, losses, rate = further, there, losses_there, 2 * rate
        else:
            rate /= 2
    else:
        warnings.warn(
            f"GroupDRO with penalty {penalty} and adjustment {adjustment} is {float(losses.max() - q @ losses):.1e} "
            f"from its best objective after {MAX_STEPS} steps. A stronger penalty helps.",
            stacklevel=4,
        )
    return Head(solution.weight[0], solution.bias[0])
