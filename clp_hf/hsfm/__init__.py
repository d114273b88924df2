"""HSFM: hard-set-guided meta-learning of a linear head in the feature space of a frozen backbone."""

from .editor import PRESETS, SELECTIONS, Head, HSFMResult, HSFMSettings, best, hsfm
from .features import FeatureSet, extract_features
from .search import random_settings
from .trainer import HSFMArguments, HSFMTrainer
from .unrolled import unrolled

__all__ = [
    "PRESETS",
    "SELECTIONS",
    "FeatureSet",
    "HSFMArguments",
    "HSFMResult",
    "HSFMSettings",
    "HSFMTrainer",
    "Head",
    "best",
    "extract_features",
    "hsfm",
    "random_settings",
    "unrolled",
]
