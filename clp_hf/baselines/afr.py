"""Automatic Feature Reweighting: the head is retrained where it is wrong, without group labels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..features.feature_set import FeatureSet, Head
from .head import HeadResult, Settings, check, fold, select, standardiser

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
    the step is the largest that surely descends, instead of a learning rate to tune.

    Args:
        train: the paper uses a fifth of the training set that the backbone did not see; a head that is sure of all its
            training samples has nothing to tell the weights. Its groups are not used.
        validation: selects the setting; its groups are used where it has them.
        head: weight (C, d) and bias (C,) of the current head, where training starts.
        settings: dictionaries with `gamma` >= 0, `penalty` in [0, inf] and `steps` >= 0.
        seed: of the estimate of the step size.

    Returns:
        `HeadResult`, by worst group on validation (worst class without groups).

    Raises:
        ValueError: the inputs do not fit together, or a setting is negative.
    """
    check(train, validation, head, settings, ["gamma", "penalty", "steps"])
    if negative := [setting for setting in settings if min(setting.values()) < 0]:
        raise ValueError(f"gamma, penalty and steps must be 0 or more, got {negative[0]}.")
    scaler = standardiser(train)
    inputs = torch.from_numpy(scaler.transform(train.features.numpy()))
    inputs = torch.cat([inputs, torch.ones(len(inputs), 1)], 1)  # the last column is the bias's
    targets = F.one_hot(train.labels, train.num_classes).float()
    weight, bias = (part.detach().cpu().double() for part in head)
    scale, mean = torch.from_numpy(scaler.scale_), torch.from_numpy(scaler.mean_)
    start = torch.cat([weight * scale, (bias + weight @ mean)[:, None]], 1).float()
    own = ((inputs @ start.T).softmax(1) * targets).sum(1)
    gamma, penalty, steps = (
        torch.tensor([setting[name] for setting in settings]).float() for name in ("gamma", "penalty", "steps")
    )
    weights = (-gamma * own[:, None] - targets.sum(0)[train.labels].log()[:, None]).softmax(0)
    heads = descend(inputs, targets, weights, start, penalty, steps, seed).double().numpy()
    return select(
        ((setting, fold(head[:, :-1], head[:, -1], scaler)) for setting, head in zip(settings, heads, strict=True)),
        validation,
    )


def descend(
    inputs: Tensor, targets: Tensor, weights: Tensor, start: Tensor, penalty: Tensor, steps: Tensor, seed: int
) -> Tensor:
    """Full-batch gradient descent on `Σ weights_i CE_i + penalty ‖θ − start‖²`, by steps as large as surely descend.

    All S settings go side by side: each step reads the inputs twice, however many there are.

    Args:
        inputs: (n, D); the last column may be the bias's.
        targets: (n, C), one-hot.
        weights: (n, S).
        start: (C, D).
        penalty, steps: (S,).
        seed: of the estimate of the step size.

    Returns:
        θ, (S, C, D).
    """
    curvature = _curvature(inputs, weights, seed)[:, None, None]
    # The penalty's step is implicit: stable however strong it is, and infinite strength keeps the head.
    shrink = 1 / (1 + 2 * penalty[:, None, None] / curvature)
    theta = start.expand(len(steps), -1, -1)
    for step in range(int(steps.max())):
        probabilities = (inputs @ theta.flatten(0, 1).T).unflatten(1, theta.shape[:2]).softmax(2)
        residuals = (probabilities - targets[:, None]) * weights[:, :, None]
        gradient = (residuals.flatten(1).T @ inputs).view_as(theta)
        moved = start + (theta - gradient / curvature - start) * shrink
        theta = torch.where(step < steps[:, None, None], moved, theta)
    return theta


def _curvature(inputs: Tensor, weights: Tensor, seed: int) -> Tensor:
    """Bound (S,) of the loss's second derivatives: half the largest eigenvalue of each weighted second moment.

    Half, because that bounds those of cross-entropy in the logits. Thirty power iterations come near enough from below:
    steps of 1 / curvature converge up to twice too long.
    """
    vector = torch.randn(inputs.shape[1], weights.shape[1], generator=torch.Generator().manual_seed(seed))
    for _ in range(30):
        vector = inputs.T @ (weights * (inputs @ (vector / vector.norm(dim=0))))
    return vector.norm(dim=0) / 2
