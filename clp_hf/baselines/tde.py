"""De-confound-TDE: the direction that all features share is taken out of what the head says."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ..features.feature_set import FeatureSet, Head
from .head import HeadResult, Settings, check, select

# Published: 3 on ImageNet-LT, 1 to 1.5 on the long-tailed CIFAR; 0 is the normalised head as it is.
DEFAULT_SETTINGS = [{"alpha": alpha, "scale": 16.0} for alpha in (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0)]


def tde(
    train: FeatureSet, validation: FeatureSet, head: Head, settings: Settings = DEFAULT_SETTINGS, seed: int = 0
) -> HeadResult:
    """The total direct effect (Tang et al. 2020, "Long-tailed classification by keeping the good and removing the bad
    momentum causal effect", Eq. 8): of the logits of a normalised classifier the part along d̂ is taken,

        u_c(x) = τ ( w_c·x / (‖w_c‖ ‖x‖) − α cos(x, d̂) w_c·d̂ / ‖w_c‖ ),

    with d̂ the direction in which the optimizer's momentum drives all features: that of their mean over the training
    images. With one head (K = 1), ‖x‖ u_c is linear in x, and has its largest class where u has: the result is an
    ordinary head, of rows τ/ℓ (ŵ_c − α (ŵ_c·d̂) d̂), ℓ the mean ‖x‖ over the training images.

    Departures: K = 1, where the paper has several heads, on parts of the features each, whose sum is not linear; the
    mean is that of the finished backbone, and no moving average along its training; ‖w_c‖ without the paper's γ = 1/32;
    and how sure the classifier is depends on ‖x‖. The first stage trains with the loss `cosine`.

    Args:
        train: its features give mean and length; its labels and groups are not used.
        validation: selects α; its groups are used where it has them.
        head: weight (C, d) and bias (C,) of a head trained on cosines; of another one the rows are normalised, and the
            bias is dropped.
        settings: dictionaries with `alpha` >= 0 and `scale` > 0, τ.
        seed: not used, nothing is drawn.

    Returns:
        `HeadResult`, by worst group on validation (worst class without groups).

    Raises:
        ValueError: the inputs do not fit together, or a setting is out of range.
    """
    check(train, validation, head, settings, ["alpha", "scale"])
    if wrong := [setting for setting in settings if setting["alpha"] < 0 or setting["scale"] <= 0]:
        raise ValueError(f"alpha must be 0 or more and scale above 0, got {wrong[0]}.")
    rows, direction = F.normalize(head[0].float(), dim=1), F.normalize(train.features.mean(0), dim=0)
    shared = torch.outer(rows @ direction, direction)
    length = train.features.norm(dim=1).mean()
    return select(
        (
            (setting, Head(setting["scale"] / length * (rows - setting["alpha"] * shared), torch.zeros_like(head[1])))
            for setting in settings
        ),
        validation,
    )
