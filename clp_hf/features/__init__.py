"""Features of a frozen backbone, the linear head on them, their extraction, and trainers of the head alone."""

from .causal import CausalFeatures, CausalImages, extract_causal_features
from .extraction import extract_features
from .feature_set import FeatureSet, Head, worst_and_average
from .trainer import HeadArguments, HeadTrainer

__all__ = [
    "CausalFeatures",
    "CausalImages",
    "FeatureSet",
    "Head",
    "HeadArguments",
    "HeadTrainer",
    "extract_causal_features",
    "extract_features",
    "worst_and_average",
]
