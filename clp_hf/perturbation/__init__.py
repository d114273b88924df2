"""The perturbation network, its ten inputs, and the class statistics that some of them need."""

from .characteristics import CHARACTERISTICS, ClassStatistics, check_characteristics, training_characteristics
from .network import PerturbationNetwork

__all__ = [
    "CHARACTERISTICS",
    "ClassStatistics",
    "PerturbationNetwork",
    "check_characteristics",
    "training_characteristics",
]
