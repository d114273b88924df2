"""The perturbation network, its ten inputs, what they are compared with, and the evidence it intervenes on."""

from .advisor import AdvisorNetwork
from .arguments import PerturbationArguments
from .base import MetaNetwork
from .characteristics import (
    BACKGROUND_MARGIN,
    CHARACTERISTICS,
    check_characteristics,
    evidence_margins,
    own_margin,
    training_characteristics,
)
from .evidence import (
    EVIDENCES,
    NONE,
    BackgroundEvidence,
    BackgroundProbe,
    Evidence,
    Evidences,
    OnlineProbe,
    Sources,
    evidence_names,
)
from .evidence import NETWORKS as EVIDENCE_NETWORKS
from .network import ACTIVATIONS, PERTURBED_LOGITS, PerturbationNetwork
from .of_batch import BatchHyperparameters
from .optimizers import OPTIMIZERS, build_optimizer
from .reweighting import LearnedWeights
from .semantic_directions import SemanticDirections
from .statistics import ClassStatistics
from .weight import WeightNetwork

# by the value of `meta_network`
META_NETWORKS = {
    "perturbation": PerturbationNetwork,
    "weight": WeightNetwork,
    "l2rw": LearnedWeights,
    "meta_saug": SemanticDirections,
    "mfrw_mes": AdvisorNetwork,
}

__all__ = [
    "ACTIVATIONS",
    "BACKGROUND_MARGIN",
    "CHARACTERISTICS",
    "EVIDENCES",
    "EVIDENCE_NETWORKS",
    "META_NETWORKS",
    "NONE",
    "OPTIMIZERS",
    "PERTURBED_LOGITS",
    "AdvisorNetwork",
    "BackgroundEvidence",
    "BackgroundProbe",
    "BatchHyperparameters",
    "ClassStatistics",
    "Evidence",
    "Evidences",
    "LearnedWeights",
    "MetaNetwork",
    "OnlineProbe",
    "PerturbationArguments",
    "PerturbationNetwork",
    "SemanticDirections",
    "Sources",
    "WeightNetwork",
    "build_optimizer",
    "check_characteristics",
    "evidence_margins",
    "evidence_names",
    "own_margin",
    "training_characteristics",
]
