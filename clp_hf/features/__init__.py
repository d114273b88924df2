"""Features of a frozen backbone, the linear head on them, and their extraction."""

from .extraction import extract_features
from .feature_set import FeatureSet, Head

__all__ = [
    "FeatureSet",
    "Head",
    "extract_features",
]
