"""Data: one loader for every source, batched transforms, groups, and the embedded birds."""

from .dataset import ImageClassificationDataset
from .dominoes import dominoes
from .embedded import embedded_birds
from .groups import group_proportions
from .loading import load_classification_dataset
from .transforms import EvalTransform, TrainTransform

__all__ = [
    "EvalTransform",
    "ImageClassificationDataset",
    "TrainTransform",
    "dominoes",
    "embedded_birds",
    "group_proportions",
    "load_classification_dataset",
]
