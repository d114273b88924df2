"""Group-robust Sample Reweighting: training samples are weighted by their influence on a small set of known groups."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from ..bilevel import SoftmaxRegression, Solution, implicit_hypergradient
from ..features.feature_set import FeatureSet, Head
from .head import HeadResult, Settings, check, fold, select, standardiser

# Around the published command for Waterbirds: penalty 0.1, rate 1, 100 steps. Its penalty was on raw features, so our
# values of it are spread more widely.
DEFAULT_SETTINGS = [
    {"penalty": penalty, "rate": 1.0, "temperature": 1.0, "steps": 100} for penalty in (1e-2, 1e-1, 1.0, 10.0)
]
DECAY, DECAY_STEPS = 0.1, 30  # of the rate, published


def gsr(
    train: FeatureSet,
    validation: FeatureSet,
    head: Head,
    settings: Settings = DEFAULT_SETTINGS,
    seed: int = 0,
    *,
    target: FeatureSet | None = None,
) -> HeadResult:
    """Group-robust Sample Reweighting (Qiao et al. 2025, "… for Subpopulation Shifts via Influence Functions").

    The weights w_i of the training samples are learned so that the head retrained on them,

        θ*(w) = argmin_θ  Σ_i w_i CE_i(θ) / Σ_i w_i + penalty ‖θ‖²,

    is good for every group g of a small target set, whose mean losses there are L_g: min_w max_q Σ_g q_g L_g(θ*(w)).
    A step retrains the head, multiplies the groups' weights q_g by exp(L_g / temperature), and moves each sample's
    weight by its influence, how fast the loss of the target falls as the weight grows,

        w_i ← max(0, w_i + rate · I_i),      I_i = (∇CE_i + 2 penalty θ*)ᵀ H⁻¹ ∇ Σ_g q_g L_g,

    with the Hessian H of the problem above; then the weights are scaled to mean one, with which they start. The rate
    falls tenfold every thirty steps.

    The method is the paper's, the details are those of its published program. Departures: features are standardised
    and the bias hardly shrunk, as for the other methods; the root mean square of I is cut to one, a bound that holds
    for every penalty, where the program cuts at √n; q follows the losses of the target set, where the program has
    error rates on validation, so that validation selects and nothing else. The default temperature is 1: the
    program's cancels.

    Args:
        train: the published program takes a tenth of the training set that the backbone did not see. Its groups are
            not used.
        validation: selects the setting and the step; its groups are used where it has them.
        head: weight (C, d) and bias (C,) of the current head; only its shape is used.
        settings: dictionaries with `penalty` > 0, `rate` > 0, `temperature` > 0 and `steps` >= 0.
        seed: not used, the weights are deterministic.
        target: with groups; by default validation, which then selects by what the weights were learned on. The
            published program takes one half of validation for each.

    Returns:
        `HeadResult`, by worst group on validation (worst class without groups); its settings tell the chosen `step`.

    Raises:
        ValueError: the inputs do not fit together, the target set has no groups, or a setting is out of range.
    """
    check(train, validation, head, settings, ["penalty", "rate", "temperature", "steps"])
    for setting in settings:
        if min(setting["penalty"], setting["rate"], setting["temperature"]) <= 0 or setting["steps"] < 0:
            raise ValueError(f"penalty, rate and temperature must be above 0, steps 0 or more, got {setting}.")
    target = validation if target is None else target
    _check_target(train, target)
    scaler = standardiser(train)
    inputs, target_inputs = (
        torch.from_numpy(scaler.transform(part.features.numpy())).float() for part in (train, target)
    )
    losses = group_losses(target_inputs, target.labels, target.groups)
    return select(
        (
            ({**setting, "step": step}, fold(weight.double().numpy(), bias.double().numpy(), scaler))
            for setting in settings
            for step, (weight, bias) in enumerate(_heads(inputs, train, losses, **setting))
        ),
        validation,
    )


def group_losses(inputs: Tensor, labels: Tensor, groups: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """A function from heads, weight (R, C, d) and bias (R, C), to the mean cross-entropy of every group, (R, G)."""
    _, groups = groups.unique(return_inverse=True)
    members = F.one_hot(groups).to(inputs.dtype)
    members /= members.sum(0)

    def losses(weight: Tensor, bias: Tensor) -> Tensor:
        logits = inputs @ weight.mT + bias[:, None]
        own = labels[None, :, None].expand(len(weight), -1, 1)
        return -logits.log_softmax(-1).gather(-1, own)[..., 0] @ members

    return losses


def influences(
    regression: SoftmaxRegression,
    outer_loss: Callable[[Tensor, Tensor], Tensor],
    weights: Tensor,
    ridge: Tensor,
    start: Solution | None = None,
) -> tuple[Tensor, Solution]:
    """How fast `outer_loss` falls when a sample's weight grows, the others' shrinking in proportion.

    Args:
        regression: the R inner problems.
        outer_loss: a scalar, from weight (R, C, d) and bias (R, C).
        weights: (R, n), 0 or more, of mean one.
        ridge: (R,), twice the penalty.
        start: an earlier solution near by.

    Returns:
        I, (R, n), and the solution.
    """
    weights = weights.detach().requires_grad_()
    none = weights.new_zeros(1, 1, 1).expand(*weights.shape, regression.num_classes)
    found, solution = implicit_hypergradient(
        regression, lambda: (none, weights / weights.mean(1, keepdim=True), ridge), outer_loss, [weights], start
    )
    return -weights.shape[1] * found.total[0], solution


def _heads(
    inputs: Tensor, train: FeatureSet, losses, penalty: float, rate: float, temperature: float, steps: int
) -> Iterator[Head]:
    """The head before the first step and after each.

    One setting at a time: the basis in which heads are solved for is that of one weighting, and penalties that are far
    apart come to weightings that are.
    """
    regression = SoftmaxRegression(inputs, train.labels, train.num_classes)
    ridge, weights = inputs.new_tensor([2 * penalty]), inputs.new_ones(1, len(inputs))
    scores, solution = 0, None  # scores: log q, up to a constant

    def robust_loss(weight, bias):
        found = losses(weight, bias)
        return ((scores + found.detach() / temperature).softmax(1) * found).sum()

    for step in range(steps + 1):
        influence, solution = influences(regression, robust_loss, weights, ridge, solution)
        yield Head(solution.weight[0], solution.bias[0])
        scores = scores + losses(solution.weight, solution.bias) / temperature
        influence /= influence.square().mean().sqrt().clamp(min=1)
        weights = (weights + rate * DECAY ** (step // DECAY_STEPS) * influence).clamp(min=0)
        weights /= weights.mean()


def _check_target(train: FeatureSet, target: FeatureSet) -> None:
    if target.groups is None:
        raise ValueError(
            "GSR needs the group of every target sample; they have none. Give a small `target` set with groups; AFR "
            "works without any."
        )
    found, expected = ((part.num_classes, part.features.shape[1]) for part in (target, train))
    if not len(target) or found != expected:
        raise ValueError(
            f"The target set has {len(target)} samples of (classes, dimensions) {found}; expected at least one, of the "
            f"training features' {expected}."
        )
