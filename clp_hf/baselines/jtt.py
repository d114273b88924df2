"""Just Train Twice, both times the head alone: what a head that was stopped early gets wrong is trained on more."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..bilevel import SoftmaxRegression
from ..features.feature_set import FeatureSet, Head
from .afr import descend
from .head import HeadResult, Settings, check, fold, select, standardiser

# Factors around the published ones (Liu et al. 2021): 100 on Waterbirds, 50 on CelebA. Steps and penalties are ours:
# their first network is stopped after epochs of its own training, and they penalise the weights of a network.
DEFAULT_SETTINGS = [
    {"steps": steps, "upweight": upweight, "penalty": penalty}
    for steps in (10, 100, 300)
    for upweight in (5.0, 20.0, 100.0)
    for penalty in (1e-2, 1e-1, 1.0)
]


def jtt(
    train: FeatureSet, validation: FeatureSet, head: Head, settings: Settings = DEFAULT_SETTINGS, seed: int = 0
) -> HeadResult:
    """Retrain the head in the manner of Just Train Twice (Liu et al. 2021), on frozen features.

    A first head is trained plainly, from zero, and stopped after a few steps of gradient descent: then it knows what is
    learned most easily. The second one solves

        min_θ  Σ_i w_i CE_i(θ) / Σ_i w_i + penalty ‖θ‖²,

    where w_i is `upweight` for the training samples that the first gets wrong, its error set, and 1 for the others,
    divided by the size of the class. Classes count alike, as for the other methods: of a rare class more samples are
    wrong, and to raise these would be to favour the class.

    It is not the published method, which trains a network twice: here the backbone stays, and both trainings are of the
    last layer. (LaBonte et al. 2023, "Towards last-layer retraining for group robustness with fewer annotations",
    retrain it on what early-stopped networks get wrong or disagree on.) Features are standardised, as for the others.

    Args:
        train: its groups are not used.
        validation: selects the setting; its groups are used where it has them.
        head: weight (C, d) and bias (C,) of the current head; only its shape is used.
        settings: dictionaries with `steps` >= 1, `upweight` >= 1 and `penalty` > 0.
        seed: of the estimate of the first head's step size.

    Returns:
        `HeadResult`, by worst group on validation (worst class without groups); its settings tell how many `errors`
        there were.

    Raises:
        ValueError: the inputs do not fit together, or a setting is out of range.
    """
    check(train, validation, head, settings, ["steps", "upweight", "penalty"])
    for setting in settings:
        if setting["steps"] < 1 or setting["upweight"] < 1 or setting["penalty"] <= 0:
            raise ValueError(f"steps and upweight must be 1 or more, penalty above 0, got {setting}.")
    scaler = standardiser(train)
    inputs = torch.from_numpy(scaler.transform(train.features.numpy())).float()
    steps, upweight, penalty = (
        inputs.new_tensor([setting[name] for setting in settings]) for name in ("steps", "upweight", "penalty")
    )
    stops, stop = steps.unique(return_inverse=True)
    errors = _error_sets(inputs, train.labels, train.num_classes, stops, seed)[stop]
    weights = torch.where(errors, upweight[:, None], 1.0) / torch.bincount(train.labels)[train.labels]
    regression = SoftmaxRegression(inputs, train.labels, train.num_classes)
    none = inputs.new_zeros(*weights.shape, train.num_classes)
    solution = regression.solve(none, weights / weights.mean(1, keepdim=True), 2 * penalty)
    heads = zip(solution.weight.double().numpy(), solution.bias.double().numpy(), strict=True)
    told = ({**setting, "errors": int(wrong.sum())} for setting, wrong in zip(settings, errors, strict=True))
    return select(((setting, fold(*one, scaler)) for setting, one in zip(told, heads, strict=True)), validation)


def _error_sets(inputs: Tensor, labels: Tensor, num_classes: int, steps: Tensor, seed: int) -> Tensor:
    """bool (S, n): which samples a plainly trained head gets wrong after so many steps (S,)."""
    inputs = torch.cat([inputs, torch.ones(len(inputs), 1)], 1)  # the last column is the bias's
    targets = F.one_hot(labels, num_classes).float()
    start = inputs.new_zeros(num_classes, inputs.shape[1])
    alike = inputs.new_full((len(inputs), len(steps)), 1 / len(inputs))
    heads = descend(inputs, targets, alike, start, torch.zeros_like(steps), steps, seed)
    return (inputs @ heads.mT).argmax(-1) != labels
