"""Training losses that CLP is compared with, by name."""

import inspect
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor

from ..utils.options import check_options
from .active_passive import NCEandMAE, NCEandRCE
from .adaptive_logit_adjustment import AdaptiveLogitAdjustment
from .balanced_softmax import BalancedSoftmax
from .base import Outputs, TrainingLoss
from .class_balanced import ClassBalanced, effective_number_weights
from .context_shift import ContextShift
from .coral import CORAL
from .correct_n_contrast import CorrectNContrast
from .cosine import Cosine
from .determinant_mutual_information import DeterminantMutualInformation
from .domain_mix import DomainMix
from .environments import environments_of_groups
from .focal import Focal
from .generalised_cross_entropy import GeneralisedCrossEntropy
from .gold_loss_correction import GoldLossCorrection
from .group_dro import GroupDRO
from .ib_irm import InformationBottleneckIRM
from .invariant_features import InvariantFeatures
from .irm import IRM
from .isda import ISDA
from .ldam import LDAM
from .lisa import LISA
from .logit_adjustment import LogitAdjustment
from .logit_correction import LogitCorrection
from .logit_perturbation import LogitPerturbation
from .mentor_net import MentorNet
from .risda import RISDA
from .two_networks import CoTeaching, JoCoR, LearningFromFailure, PairLoss
from .v_rex import VarianceRiskExtrapolation

TRAINING_LOSSES = {
    "class_balanced": ClassBalanced,
    "class_balanced_focal": partial(ClassBalanced, gamma=2.0),
    "focal": Focal,
    "ldam": partial(LDAM, reweight_from=1.0),
    "ldam_drw": LDAM,
    "logit_adjustment": LogitAdjustment,
    "balanced_softmax": BalancedSoftmax,
    "ala": AdaptiveLogitAdjustment,
    "lpl": LogitPerturbation,
    "isda": ISDA,
    "risda": RISDA,
    "generalised_cross_entropy": GeneralisedCrossEntropy,
    "nce_rce": NCEandRCE,
    "nce_mae": NCEandMAE,
    "l_dmi": DeterminantMutualInformation,
    "group_dro": GroupDRO,
    "lisa": LISA,
    "irm": IRM,
    "ib_irm": InformationBottleneckIRM,
    "v_rex": VarianceRiskExtrapolation,
    "coral": CORAL,
    "domain_mix": DomainMix,
    "cosine": Cosine,
    "gold_loss_correction": GoldLossCorrection,
    "mentor_net": MentorNet,
    "co_teaching": CoTeaching,
    "jocor": JoCoR,
    "lff": LearningFromFailure,
    "context_shift": ContextShift,
    "invariant_features": InvariantFeatures,
    "correct_n_contrast": CorrectNContrast,
    "logit_correction": LogitCorrection,
}
LEARNED = ("corruption",)  # in a first stage
# Of the run, and no options.
KNOWN = ("class_counts", "group_counts", "cell_counts", "num_features", "noise_rate", *LEARNED)


def _loss(name: str) -> Callable[..., TrainingLoss]:
    if name not in TRAINING_LOSSES:
        raise ValueError(f"There is no training loss {name!r}; choose one of {', '.join(TRAINING_LOSSES)}.")
    return TRAINING_LOSSES[name]


def _arguments(name: str) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(_loss(name)).parameters


def needs_groups(name: str) -> bool:
    """Whether the loss with this name needs the group of every training image."""
    return not {"group_counts", "cell_counts"}.isdisjoint(_arguments(name))


def needs_head(name: str) -> bool:
    """Whether the loss with this name sees more than logits: cosines, or features and the head's weight."""
    loss = _loss(name)
    loss = getattr(loss, "func", loss)
    return loss.takes_cosines or loss.takes_features


def is_pair(name: str) -> bool:
    """Whether the loss with this name is one of two networks, a `PairLoss`."""
    loss = TRAINING_LOSSES.get(name)
    return isinstance(loss, type) and issubclass(loss, PairLoss)


def needs_first_stage(name: str) -> bool:
    """Whether the loss with this name needs what a method of two stages learns in its first."""
    return not set(LEARNED).isdisjoint(_arguments(name))


def build_loss(
    name: str,
    labels: Tensor,
    num_labels: int,
    groups: Tensor | None = None,
    options: Mapping[str, float] | None = None,
    num_features: int | None = None,
    corruption: Tensor | None = None,
    noise_rate: float | None = None,
) -> TrainingLoss:
    """The loss of `TRAINING_LOSSES` with this name, for a training set.

    Args:
        name: of the loss.
        labels: (N,) of all training images.
        num_labels: C.
        groups: (N,) of all training images, where they are known.
        options: numbers, in place of the published defaults.
        num_features: d, of the head; for a loss that takes features.
        corruption: (C, C), where a first stage has estimated it.
        noise_rate: the share of the training images whose label is known to be wrong, where that is known.

    Raises:
        ValueError: an unknown name or option (the message lists the valid ones), a bad value, a class without images,
            or no groups, or no corruption matrix, for a loss that needs them.
    """
    arguments = _arguments(name)
    check_options(name, [argument for argument in arguments if argument not in KNOWN], options)
    if groups is None and needs_groups(name):
        raise ValueError(
            f"{name} needs the group of every training image, and they have none. Give the data set a group or "
            "attribute column (--group_column, --attribute_column), or choose a loss that needs none."
        )
    if corruption is None and needs_first_stage(name):
        raise ValueError(
            f"{name} needs the corruption matrix of the labels, which is estimated in a first stage: --method glc."
        )
    known = {"class_counts": torch.bincount(labels, minlength=num_labels)}
    known |= {"num_features": num_features, "corruption": corruption, "noise_rate": noise_rate}
    if groups is not None:
        if groups.is_floating_point() or groups.min() < 0:
            raise ValueError(f"Groups are integers from 0; found {groups.dtype} from {groups.min()}.")
        num_groups = int(groups.max()) + 1
        cells = torch.bincount(labels * num_groups + groups, minlength=num_labels * num_groups)
        known["cell_counts"] = cells.view(num_labels, num_groups)
        known["group_counts"] = known["cell_counts"].sum(0)
    return TRAINING_LOSSES[name](**{key: value for key, value in known.items() if key in arguments}, **options or {})


__all__ = [
    "CORAL",
    "IRM",
    "ISDA",
    "LDAM",
    "LISA",
    "RISDA",
    "TRAINING_LOSSES",
    "AdaptiveLogitAdjustment",
    "BalancedSoftmax",
    "ClassBalanced",
    "CoTeaching",
    "ContextShift",
    "CorrectNContrast",
    "Cosine",
    "DeterminantMutualInformation",
    "DomainMix",
    "Focal",
    "GeneralisedCrossEntropy",
    "GoldLossCorrection",
    "GroupDRO",
    "InformationBottleneckIRM",
    "InvariantFeatures",
    "JoCoR",
    "LearningFromFailure",
    "LogitAdjustment",
    "LogitCorrection",
    "LogitPerturbation",
    "MentorNet",
    "NCEandMAE",
    "NCEandRCE",
    "Outputs",
    "PairLoss",
    "TrainingLoss",
    "VarianceRiskExtrapolation",
    "build_loss",
    "effective_number_weights",
    "environments_of_groups",
    "is_pair",
    "needs_first_stage",
    "needs_groups",
    "needs_head",
]
