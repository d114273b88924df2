"""The head trained again on balanced classes, the backbone having learned from what is frequent: cRT and LWS."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil, cos, pi

import torch
import torch.nn.functional as F
from torch import Tensor

from ..features.feature_set import FeatureSet, Head
from .head import HeadResult, Settings, check, fold, select, standardiser

# Kang et al. 2020: SGD of rate 0.2 in batches of 512, down to 0 by a cosine, 10 epochs, weight decay 5e-4. The other
# rate, and as many epochs as they train a backbone, are ours: theirs were chosen for ImageNet-LT alone.
DEFAULT_SETTINGS = [
    {"learning_rate": rate, "epochs": epochs, "weight_decay": 5e-4} for rate in (0.2, 0.02) for epochs in (10, 90)
]
BATCH, FEWEST_STEPS, MOMENTUM = 512, 10, 0.9


def crt(
    train: FeatureSet, validation: FeatureSet, head: Head, settings: Settings = DEFAULT_SETTINGS, seed: int = 0
) -> HeadResult:
    """Classifier Re-training (Kang et al. 2020, "Decoupling representation and classifier for long-tailed recognition",
    section 4.1): a new head is trained on the frozen features, its batches drawn of all classes equally often.

    Two departures: features are standardised, and are those of the images as they are evaluated, where the authors crop
    and flip them anew in every epoch. The first stage is plain training, each image once an epoch.

    Args:
        train: its groups are not used.
        validation: selects the setting; its groups are used where it has them.
        head: weight (C, d) and bias (C,) of the current head; only its shape is used.
        settings: dictionaries with `learning_rate` > 0, `epochs` >= 1 and `weight_decay` >= 0.
        seed: of the batches.

    Returns:
        `HeadResult`, by worst group on validation (worst class without groups).

    Raises:
        ValueError: the inputs do not fit together, or a setting is out of range.
    """
    _check(train, validation, head, settings)
    scaler = standardiser(train)
    inputs = torch.from_numpy(scaler.transform(train.features.numpy())).float()

    def trained(setting) -> Head:
        parts = [torch.zeros_like(head[0]), torch.zeros_like(head[1])]
        weight, bias = descend_in_batches(
            parts, lambda rows, weight, bias: rows @ weight.T + bias, inputs, train.labels, seed=seed, **setting
        )
        return fold(weight.double().numpy(), bias.double().numpy(), scaler)

    return select(((setting, trained(setting)) for setting in settings), validation)


def lws(
    train: FeatureSet, validation: FeatureSet, head: Head, settings: Settings = DEFAULT_SETTINGS, seed: int = 0
) -> HeadResult:
    """Learnable Weight Scaling (Kang et al. 2020, section 4.1): of the head a factor f_c of every class is learned
    alone, w̃_c = f_c w_c and b̃_c = f_c b_c, from batches drawn of all classes equally often.

    As their program has it, the factors begin at 1. The rest as of `crt`, without standardised features.

    Args:
        train, validation, settings, seed: as of `crt`.
        head: weight (C, d) and bias (C,) of the current head, which is scaled.

    Returns:
        As of `crt`.

    Raises:
        ValueError: as of `crt`.
    """
    _check(train, validation, head, settings)
    logits = Head(*head).logits(train.features)

    def trained(setting) -> Head:
        (factors,) = descend_in_batches(
            [torch.ones_like(head[1])], lambda rows, factors: rows * factors, logits, train.labels, seed=seed, **setting
        )
        return Head(factors[:, None] * head[0], factors * head[1])

    return select(((setting, trained(setting)) for setting in settings), validation)


def descend_in_batches(
    start: Sequence[Tensor],
    logits_of: Callable[..., Tensor],
    inputs: Tensor,
    labels: Tensor,
    learning_rate: float,
    epochs: int,
    weight_decay: float,
    seed: int,
) -> list[Tensor]:
    """SGD with momentum on the cross-entropy, on batches drawn of all classes equally often, with replacement.

    Args:
        start: what is learned, as it begins.
        logits_of: from inputs (b, …) and what is learned to logits (b, C).
        inputs, labels: (n, …) and (n,).
        learning_rate, weight_decay: of SGD; the rate falls to 0 by half a cosine.
        epochs: of n draws, each of ten batches at least.
        seed: of the draws.

    Returns:
        What was learned.
    """
    generator = torch.Generator().manual_seed(seed)
    weights = (1 / torch.bincount(labels).double())[labels]
    batch = max(1, min(BATCH, len(labels) // FEWEST_STEPS))
    steps = ceil(len(labels) / batch) * int(epochs)
    learned = [part.detach().clone().float().requires_grad_() for part in start]
    optimizer = torch.optim.SGD(learned, learning_rate, momentum=MOMENTUM, weight_decay=weight_decay)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = learning_rate * (1 + cos(pi * step / steps)) / 2
        drawn = torch.multinomial(weights, batch, replacement=True, generator=generator)
        loss = F.cross_entropy(logits_of(inputs[drawn], *learned), labels[drawn])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return [part.detach() for part in learned]


def _check(train: FeatureSet, validation: FeatureSet, head: Head, settings: Settings) -> None:
    check(train, validation, head, settings, ["learning_rate", "epochs", "weight_decay"])
    for setting in settings:
        if setting["learning_rate"] <= 0 or setting["epochs"] < 1 or setting["weight_decay"] < 0:
            raise ValueError(f"learning_rate must be above 0, epochs 1 and weight_decay 0 or more, got {setting}.")
