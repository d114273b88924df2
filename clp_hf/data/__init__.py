"""Data: one loader for every source, batched transforms, groups, embedded birds, and the scenarios to learn under."""

from .dataset import ImageClassificationDataset
from .embedded import embedded_birds
from .groups import group_proportions
from .loading import load_classification_dataset
from .scenarios.dominoes import dominoes
from .scenarios.glt import generalised_long_tail
from .scenarios.label_noise import flip_noise, similar_classes, uniform_noise
from .scenarios.long_tail import index_hash, long_tail
from .scenarios.pseudo_attributes import add_pseudo_attributes
from .transforms import EvalTransform, PaddedCropTransform, ProcessorTransform, TrainTransform

__all__ = [
    "EvalTransform",
    "ImageClassificationDataset",
    "PaddedCropTransform",
    "ProcessorTransform",
    "TrainTransform",
    "add_pseudo_attributes",
    "dominoes",
    "embedded_birds",
    "flip_noise",
    "generalised_long_tail",
    "group_proportions",
    "index_hash",
    "load_classification_dataset",
    "long_tail",
    "similar_classes",
    "uniform_noise",
]
