"""Automatic Feature Reweighting: the head is retrained where it is wrong, without group labels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..hsfm.features import FeatureSet
from .head import Head, HeadResult, Settings, check, fold, select, standardiser

# Around the published settings (Qiu et al. 2023): gamma 14 on Waterbirds and 1.8 on CelebA, penalties of 0 and 0.2, 500
# and 100 steps. Their penalty was on raw features, so our values of it are spread more widely.
DEFAULT_SETTINGS = [
    {"gamma": gamma, "penalty": penalty, "steps": 500} for gamma in (1.0, 4.0, 8.0, 14.0) for penalty in (0, 1e-3, 1e-1)
]


def afr(
    train: FeatureSet, validation: FeatureSet, head: Head, settings: Settings = DEFAULT_SETTINGS, seed: int = 0
) -> HeadResult:
    """Retrain the head in the manner of Automatic Feature Reweighting (Qiu et al. 2023).

    Minimises `Σ μ_i CE_i + penalty ‖θ − θ_0‖²` from the current head θ_0 by full-batch gradient descent, with weights
    `μ_i ∝ exp(−gamma · p_i) / n_{y_i}` that sum to one: p_i is the current head's probability of the sample's own class
    y_i, n_y the number of samples of class y.

    Two departures from the paper: features are standardised, so that the penalty means the same for every backbone, and
    the step is the largest that cannot overshoot, instead of a learning rate to tune.

    Args:
        train: the paper uses a fifth of the training set that the backbone did not see; a head that is sure of all its
            training samples has nothing to tell the weights. Its groups are not used.
        validation: selects the setting; its groups are used where it has them.
        head: weight (C, d) and bias (C,) of the current head, where training starts.
        settings: dictionaries with `gamma` >= 0, `penalty` in [0, inf] and `steps` >= 0.
        seed: not used, training is deterministic.

    Returns:
        `HeadResult`, by worst group on validation (worst class without groups).

    Raises:
        ValueError: the inputs do not fit together, or a setting is negative.
    """
    check(train, validation, head, settings, ["gamma", "penalty", "steps"])
    if negative := [setting for setting in settings if min(setting.values()) < 0]:
        raise ValueError(f"gamma, penalty and steps must be 0 or more, got {negative[0]}.")
    scaler = standardiser(train)
    inputs = torch.from_numpy(scaler.transform(train.features.double().numpy())).float()
    inputs = torch.cat([inputs, torch.ones(len(inputs), 1)], 1)  # the last column is the bias's
    targets = F.one_hot(train.labels, train.num_classes).float()
    weight, bias = (part.detach().cpu().double() for part in head)
    scale, mean = torch.from_numpy(scaler.scale_), torch.from_numpy(scaler.mean_)
    start = torch.cat([weight * scale, (bias + weight @ mean)[:, None]], 1).float()
    own = ((inputs @ start.T).softmax(1) * targets).sum(1)
    class_sizes = targets.sum(0)[train.labels]

    def fit(setting) -> Head:
        weights = (-setting["gamma"] * own - class_sizes.log()).softmax(0)
        theta = _descend(inputs, targets, weights, start, setting["penalty"], int(setting["steps"]))
        return fold(theta[:, :-1].double().numpy(), theta[:, -1].double().numpy(), scaler)

    return select(((setting, fit(setting)) for setting in settings), validation)


def _descend(inputs: Tensor, targets: Tensor, weights: Tensor, start: Tensor, penalty: float, steps: int) -> Tensor:
    # The Hessian of cross-entropy in the logits is at most 1/2, so 1 over `curvature` cannot overshoot.
    root = inputs * weights.sqrt()[:, None]
    curvature = torch.linalg.matrix_norm(root, 2).square() / 2
    # The penalty's step is implicit: stable however strong it is, and infinite strength keeps the head.
    shrink = 1 / (1 + 2 * penalty / curvature)
    weighted = inputs * weights[:, None]
    theta = start
    for _ in range(steps):
        gradient = ((inputs @ theta.T).softmax(1) - targets).T @ weighted
        theta = start + (theta - gradient / curvature - start) * shrink
    return theta
