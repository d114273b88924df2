"""HSFM: hard-set-guided meta-learning of a linear head in the feature space of a frozen backbone."""

from ..features import FeatureSet, Head, extract_features
from .editor import PRESETS, SELECTIONS, HSFMResult, HSFMSettings, best, hsfm
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
