"""The ten training characteristics of a sample (CLP, Table 1), the inputs of the perturbation network.

A characteristic is a line in `TABLE_1` or, beyond the paper's ten, in `OURS`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..utils.names import did_you_mean
from ..utils.precision import at_least_float32
from .evidence import EVIDENCES
from .statistics import ClassStatistics


@dataclass(frozen=True)
class Samples:
    """What characteristics are made of, for a batch, in float32 or better.

    Attributes:
        labels: (n,).
        features: (n, d), the input of the final linear layer.
        class_weight: (n, d), of the final linear layer for each label.
        probabilities: (n, C), of the unperturbed logits.
        own: bool (n, C), true at each label.
        loss, margin: (n,), cross-entropy, and p_y over the largest other.
        statistics: the running class means.
        extrinsic_logits: u_z, (n, C), by the name of the margin that is made of it.
    """

    labels: Tensor
    features: Tensor
    class_weight: Tensor
    probabilities: Tensor
    own: Tensor
    loss: Tensor
    margin: Tensor
    statistics: ClassStatistics
    extrinsic_logits: Mapping[str, Tensor]


@dataclass(frozen=True)
class Characteristic:
    """A characteristic.

    Attributes:
        of: gives it, (n,).
        axis: what an axis of it is called, with its unit.
    """

    of: Callable[[Samples], Tensor]
    axis: str


def own_margin(values: Tensor, labels: Tensor) -> Tensor:
    """How far the own class is above the mean of the others: (n,) from values (n, C)."""
    own = values.gather(1, labels[:, None])[:, 0]
    return own - (values.sum(-1) - own) / (values.shape[-1] - 1)


def _entropy(of: Samples) -> Tensor:
    return torch.special.entr(of.probabilities).sum(-1) / torch.log(torch.tensor(2.0))


def _gradient_norm(of: Samples) -> Tensor:
    return (of.own.to(of.probabilities.dtype) - of.probabilities).norm(dim=-1)


TABLE_1 = {
    "loss": Characteristic(lambda of: of.loss, "loss, nats"),
    "margin": Characteristic(lambda of: of.margin, "margin, probability"),
    "gradient_norm": Characteristic(_gradient_norm, "gradient norm"),
    "cosine": Characteristic(lambda of: F.cosine_similarity(of.features, of.class_weight), "cosine to class weight"),
    "entropy": Characteristic(_entropy, "entropy, bits"),
    "class_proportion": Characteristic(lambda of: of.statistics.proportion[of.labels], "share of the class"),
    "class_loss": Characteristic(lambda of: of.statistics.loss[of.labels], "mean class loss, nats"),
    "class_weight_norm": Characteristic(lambda of: of.class_weight.square().sum(-1), "class weight norm²"),
    "relative_loss": Characteristic(lambda of: of.loss - of.statistics.loss[of.labels], "loss − class mean, nats"),
    "relative_margin": Characteristic(lambda of: of.margin - of.statistics.margin[of.labels], "margin − class mean"),
}


def margin_of(evidence: str) -> str:
    """What the margin of an evidence is called."""
    return f"{evidence}_margin"


def _evidence_margin(name: str) -> Callable[[Samples], Tensor]:
    return lambda of: own_margin(of.extrinsic_logits[name], of.labels)


# Beyond the paper's ten: of every evidence, u_z of the own class over the mean of the others.
EVIDENCE_MARGINS = {
    margin_of(name): Characteristic(_evidence_margin(margin_of(name)), f"{name} margin, logits") for name in EVIDENCES
}
BACKGROUND_MARGIN = margin_of("background")
OURS = EVIDENCE_MARGINS
KNOWN_CHARACTERISTICS = TABLE_1 | OURS
CHARACTERISTICS = tuple(TABLE_1)  # the default inputs


@torch.no_grad()
def training_characteristics(
    logits: Tensor,
    features: Tensor,
    labels: Tensor,
    head_weight: Tensor,
    statistics: ClassStatistics,
    names: Sequence[str] = CHARACTERISTICS,
    update: bool = True,
    extrinsic_logits: Tensor | None = None,
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
        extrinsic_logits: u_z, (n, E, C), of the E evidences whose margins are among the names, in their order there; of
            one also (n, C).

    Returns:
        (n, len(names)). Ranges: margin [−1, 1], gradient_norm [0, √2], cosine [−1, 1], entropy [0, log₂ C] bits,
        class_proportion (0, 1], the others as the loss and weights are.

    Raises:
        ValueError: for a name that is not one of `TABLE_1` or `OURS`.
    """
    check_characteristics(names)
    logits, features, head_weight = (at_least_float32(tensor) for tensor in (logits, features, head_weight))
    log_probabilities = logits.log_softmax(-1)
    probabilities = log_probabilities.exp()
    own = F.one_hot(labels, logits.shape[-1]).bool()
    loss, own_probability = (values.gather(1, labels[:, None])[:, 0] for values in (-log_probabilities, probabilities))
    margin = own_probability - probabilities.masked_fill(own, -torch.inf).amax(-1)
    if update:
        statistics.update(loss, margin, labels)
    extrinsic = {}
    if margins := evidence_margins(names):
        u_z = extrinsic_logits.reshape(len(labels), len(margins), -1)
        extrinsic = dict(zip(margins, u_z.unbind(1), strict=True))
    samples = Samples(labels, features, head_weight[labels], probabilities, own, loss, margin, statistics, extrinsic)
    return torch.stack([KNOWN_CHARACTERISTICS[name].of(samples) for name in names], dim=-1)


def evidence_margins(names: Sequence[str]) -> list[str]:
    """Those of the names that are margins of an evidence, in their order."""
    return [name for name in names if name in EVIDENCE_MARGINS]


def check_characteristics(names: Sequence[str]) -> None:
    """Refuse an empty list or unknown names, listing the valid ones."""
    unknown = [name for name in names if name not in KNOWN_CHARACTERISTICS]
    if unknown or not names:
        choice = [name for name in KNOWN_CHARACTERISTICS if name not in EVIDENCE_MARGINS]  # which come by `evidence`
        raise ValueError(
            f"characteristics are {list(names)}; expected one or more of {', '.join(choice)}"
            + (f" (unknown: {', '.join(unknown)}).{did_you_mean(unknown[0], choice)}" if unknown else ".")
        )
