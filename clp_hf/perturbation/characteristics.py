"""The ten training characteristics of a sample (CLP, Table 1), the inputs of the perturbation network."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..utils.precision import at_least_float32
from .statistics import ClassStatistics

CHARACTERISTICS = (
    "loss",
    "margin",
    "gradient_norm",
    "cosine",
    "entropy",
    "class_proportion",
    "class_loss",
    "class_weight_norm",
    "relative_loss",
    "relative_margin",
)
# Beyond the paper's ten: u_z of the own class over the mean of the others, where a `BackgroundProbe` gives u_z.
BACKGROUND_MARGIN = "background_margin"


@torch.no_grad()
def training_characteristics(
    logits: Tensor,
    features: Tensor,
    labels: Tensor,
    head_weight: Tensor,
    statistics: ClassStatistics,
    names: Sequence[str] = CHARACTERISTICS,
    update: bool = True,
    background_logits: Tensor | None = None,
) -> Tensor:
    """The named characteristics of every sample (Table 1), detached, in float32 or better.

    Args:
        logits: (n, C), unperturbed.
        features: (n, d), the input of the final linear layer.
        labels: (n,), integer; for a counterfactual image "not y", its original y.
        head_weight: (C, d), the weight of the final linear layer.
        statistics: the running class means; the batch is taken in first, unless `update` is False.
        names: which characteristics, in which order.
        update: False for meta images, which must not move the statistics of the training set.
        background_logits: u_z, (n, C), where `"background_margin"` is among the names.

    Returns:
        (n, len(names)). Ranges: margin [−1, 1], gradient_norm [0, √2], cosine [−1, 1], entropy [0, log₂ C] bits,
        class_proportion (0, 1], the others as the loss and weights are.

    Raises:
        ValueError: for a name that is not one of `CHARACTERISTICS`.
    """
    check_characteristics(names)
    logits, features, head_weight = (at_least_float32(tensor) for tensor in (logits, features, head_weight))
    log_probabilities = logits.log_softmax(-1)
    probabilities = log_probabilities.exp()
    own = F.one_hot(labels, logits.shape[-1]).bool()
    loss = -log_probabilities[own]
    margin = probabilities[own] - probabilities.masked_fill(own, -torch.inf).amax(-1)
    if update:
        statistics.update(loss, margin, labels)
    class_weight = head_weight[labels]
    values = {
        "loss": loss,
        "margin": margin,
        "gradient_norm": (own.to(logits.dtype) - probabilities).norm(dim=-1),
        "cosine": F.cosine_similarity(features, class_weight),
        "entropy": torch.special.entr(probabilities).sum(-1) / torch.log(torch.tensor(2.0)),
        "class_proportion": statistics.proportion[labels],
        "class_loss": statistics.loss[labels],
        "class_weight_norm": class_weight.square().sum(-1),
        "relative_loss": loss - statistics.loss[labels],
        "relative_margin": margin - statistics.margin[labels],
    }
    if background_logits is not None:
        values[BACKGROUND_MARGIN] = own_margin(background_logits, labels)
    return torch.stack([values[name] for name in names], dim=-1)


def own_margin(values: Tensor, labels: Tensor) -> Tensor:
    """How far the own class is above the mean of the others: (n,) from values (n, C)."""
    own = values.gather(1, labels[:, None])[:, 0]
    return own - (values.sum(-1) - own) / (values.shape[-1] - 1)


def check_characteristics(names: Sequence[str]) -> None:
    """Refuse an empty list or names that are not in `CHARACTERISTICS`, listing the valid ones."""
    unknown = [name for name in names if name not in (*CHARACTERISTICS, BACKGROUND_MARGIN)]
    if unknown or not names:
        raise ValueError(
            f"characteristics are {list(names)}; expected one or more of {', '.join(CHARACTERISTICS)}"
            + (f" (unknown: {', '.join(unknown)})." if unknown else ".")
        )
