"""What CLP and HSFM are compared with.

Methods on frozen features, with one interface and one rule of selection, and trainers of some; training losses
by name, in `losses`; and Meta-Weight-Net, another network for CLP's hypergradient.
"""

from ..features.feature_set import worst_and_average
from ..losses import TRAINING_LOSSES, build_loss
from ..perturbation import WeightNetwork
from .afr import afr
from .dfr import dfr
from .group_dro import group_dro
from .gsr import gsr
from .head import HeadResult, select
from .jtt import jtt
from .logistic_regression import logistic_regression
from .trainer import (
    AFRTrainer,
    DFRTrainer,
    GroupDROTrainer,
    GSRTrainer,
    JTTTrainer,
    KnownGroupsArguments,
    RegressionArguments,
    RegressionTrainer,
)

__all__ = [
    "TRAINING_LOSSES",
    "AFRTrainer",
    "DFRTrainer",
    "GSRTrainer",
    "GroupDROTrainer",
    "HeadResult",
    "JTTTrainer",
    "KnownGroupsArguments",
    "RegressionArguments",
    "RegressionTrainer",
    "WeightNetwork",
    "afr",
    "build_loss",
    "dfr",
    "group_dro",
    "gsr",
    "jtt",
    "logistic_regression",
    "select",
    "worst_and_average",
]
