"""The perturbation network, its ten inputs, and the class statistics that some of them need."""

from .background import BackgroundProbe
from .characteristics import (
    BACKGROUND_MARGIN,
    CHARACTERISTICS,
    ClassStatistics,
    check_characteristics,
    own_margin,
    training_characteristics,
)
from .network import PERTURBED_LOGITS, MetaNetwork, PerturbationNetwork

__all__ = [
    "BACKGROUND_MARGIN",
    "CHARACTERISTICS",
    "PERTURBED_LOGITS",
    "BackgroundProbe",
    "ClassStatistics",
    "MetaNetwork",
    "PerturbationNetwork",
    "check_characteristics",
    "own_margin",
    "training_characteristics",
]
