"""CLP in feature space: the linear head of a frozen backbone, perturbed by evidence whose strength is learned."""

from .learning import CLPHeadResult, CLPHeadSettings, best, clp_head
from .trainer import CLPHeadArguments, CLPHeadTrainer

__all__ = [
    "CLPHeadArguments",
    "CLPHeadResult",
    "CLPHeadSettings",
    "CLPHeadTrainer",
    "best",
    "clp_head",
]
