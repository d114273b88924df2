"""What CLP and HSFM are compared with.

Methods on frozen features, with one interface and one rule of selection, and trainers of some; training losses
by name, in `losses`; and Meta-Weight-Net, another network for CLP's hypergradient.
"""

from ..features.feature_set import worst_and_average
from ..losses import TRAINING_LOSSES, build_loss
from ..perturbation import WeightNetwork
from .afr import afr
from .classifier_retraining import crt, lws
from .dfr import dfr
from .group_dro import group_dro
from .gsr import gsr
from .head import HeadResult, select
from .jtt import jtt
from .logistic_regression import logistic_regression
from .selection_by_disagreement import self_disagreement
from .tde import tde
from .trainer import (
    AFRTrainer,
    CRTTrainer,
    DFRTrainer,
    GroupDROTrainer,
    GSRTrainer,
    JTTTrainer,
    KnownGroupsArguments,
    LWSTrainer,
    RegressionArguments,
    RegressionTrainer,
    SELFTrainer,
    TDETrainer,
)

__all__ = [
    "TRAINING_LOSSES",
    "AFRTrainer",
    "CRTTrainer",
    "DFRTrainer",
    "GSRTrainer",
    "GroupDROTrainer",
    "HeadResult",
    "JTTTrainer",
    "KnownGroupsArguments",
    "LWSTrainer",
    "RegressionArguments",
    "RegressionTrainer",
    "SELFTrainer",
    "TDETrainer",
    "WeightNetwork",
    "afr",
    "build_loss",
    "crt",
    "dfr",
    "group_dro",
    "gsr",
    "jtt",
    "logistic_regression",
    "lws",
    "select",
    "self_disagreement",
    "tde",
    "worst_and_average",
]
