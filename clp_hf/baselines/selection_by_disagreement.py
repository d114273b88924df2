"""SELF: the head is tuned on the few held-out images about which it disagrees with itself."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..features.feature_set import FeatureSet, Head
from .classifier_retraining import descend_in_batches
from .head import HeadResult, Settings, check, select

# Around the published ones: 20, 100 or 500 images, dropout 0.5 to 0.9, rates 1e-4 to 1e-2. Ours are fewer of each, and
# a larger rate, as a head alone takes.
DEFAULT_SETTINGS = [
    {"images": images, "dropout": dropout, "learning_rate": rate}
    for images in (20, 100, 500)
    for dropout in (0.5, 0.9)
    for rate in (1e-3, 1e-2, 1e-1)
]
EPOCHS = 25  # of ten batches or more: their 250 steps


def self_disagreement(
    train: FeatureSet, validation: FeatureSet, head: Head, settings: Settings = DEFAULT_SETTINGS, seed: int = 0
) -> HeadResult:
    """Selective last-layer finetuning (LaBonte et al. 2023, "Towards last-layer retraining for group robustness with
    fewer annotations", section 5), with disagreement by dropout.

    Of held-out images those are chosen on which the head disagrees most with itself under dropout of its inputs,

        KL(softmax(head(dropout(x))) ‖ softmax(head(x))),

    and the head is tuned on these from where it is, by SGD on batches of all classes equally often. No group is used,
    and of the labels only those of the chosen images.

    The paper compares four ways to choose; this is its dropout disagreement, which needs no second network, where its
    best one on most data compares with a network that was stopped early. As there, the images are of one half of
    validation; the other half selects the setting.

    Args:
        train: not used.
        validation: one half of it, with the same share of every class, is what the images are chosen of; the other
            selects the setting, by its groups where it has them.
        head: weight (C, d) and bias (C,) of the current head, where tuning starts.
        settings: dictionaries with `images` >= 1, `dropout` in (0, 1) and `learning_rate` > 0.
        seed: of the halves, dropout and batches.

    Returns:
        `HeadResult`, by worst group on the other half (worst class without groups).

    Raises:
        ValueError: the inputs do not fit together, a setting is out of range, or validation has fewer than two images
            of a class.
    """
    from sklearn.model_selection import train_test_split  # half a second to import, needed here only

    check(train, validation, head, settings, ["images", "dropout", "learning_rate"])
    for setting in settings:
        if setting["images"] < 1 or not 0 < setting["dropout"] < 1 or setting["learning_rate"] <= 0:
            raise ValueError(
                f"images must be 1 or more, dropout between 0 and 1, learning_rate above 0, got {setting}."
            )
    sizes = torch.bincount(validation.labels, minlength=validation.num_classes)
    if short := (sizes < 2).nonzero()[:, 0].tolist():
        raise ValueError(f"SELF halves validation, which has fewer than two images of the classes {short}.")
    first, second = map(
        torch.from_numpy,
        train_test_split(
            torch.arange(len(validation)).numpy(), test_size=0.5, stratify=validation.labels.numpy(), random_state=seed
        ),
    )
    pool, weight, bias = validation[first], *(part.detach().float() for part in head)

    def tuned(images: int, dropout: float, learning_rate: float) -> Head:
        most = disagreement(pool.features, Head(weight, bias), dropout, seed).argsort(descending=True)[: int(images)]
        chosen = pool[most]
        return Head(
            *descend_in_batches(
                [weight, bias],
                lambda rows, weight, bias: rows @ weight.T + bias,
                chosen.features,
                chosen.labels,
                learning_rate,
                EPOCHS,
                0.0,
                seed,
            )
        )

    return select(
        ((setting, tuned(**setting)) for setting in settings),
        validation[second],
        on="the half of validation that it was not tuned on",
    )


def disagreement(features: Tensor, head: Head, dropout: float, seed: int) -> Tensor:
    """KL of what the head says with dropout from what it says without, (n,), as in the authors' program.

    Args:
        features: (n, d).
        head: weight (C, d) and bias (C,).
        dropout: the share of the features that are set to 0, the others being raised by it.
        seed: of which.
    """
    kept = torch.rand(features.shape, generator=torch.Generator().manual_seed(seed)) >= dropout
    plain, dropped = (head.logits(rows).log_softmax(1) for rows in (features, features * kept / (1 - dropout)))
    return F.kl_div(plain, dropped, reduction="none", log_target=True).sum(1)
