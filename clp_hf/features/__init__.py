"""Features of a frozen backbone, the linear head on them, and their extraction."""

from .causal import CausalFeatures, CausalImages, extract_causal_features
from .extraction import extract_features
from .feature_set import FeatureSet, Head, worst_and_average

__all__ = [
    "CausalFeatures",
    "CausalImages",
    "FeatureSet",
    "Head",
    "extract_causal_features",
    "extract_features",
    "worst_and_average",
]
