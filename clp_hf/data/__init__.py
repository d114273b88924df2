"""Data: one loader for every source, batched transforms, groups, embedded birds, and the scenarios to learn under."""

from typing import TYPE_CHECKING

from ..utils.lazy import lazy_names

if TYPE_CHECKING:
    from .columns import Columns
    from .dataset import ImageClassificationDataset
    from .embedded import embedded_birds
    from .groups import group_proportions
    from .loading import load_classification_dataset
    from .scenarios.dominoes import dominoes
    from .scenarios.glt import generalised_long_tail
    from .scenarios.label_noise import flip_noise, similar_classes, uniform_noise
    from .scenarios.long_tail import index_hash, long_tail
    from .scenarios.misleading_objects import misleading_objects
    from .scenarios.pseudo_attributes import add_pseudo_attributes
    from .transforms import EvalTransform, PaddedCropTransform, ProcessorTransform, TrainTransform

__all__ = [
    "Columns",
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
    "misleading_objects",
    "similar_classes",
    "uniform_noise",
]

# the flags of a command are read without torch and datasets
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Columns": ".columns",
        "EvalTransform": ".transforms",
        "ImageClassificationDataset": ".dataset",
        "PaddedCropTransform": ".transforms",
        "ProcessorTransform": ".transforms",
        "TrainTransform": ".transforms",
        "add_pseudo_attributes": ".scenarios.pseudo_attributes",
        "dominoes": ".scenarios.dominoes",
        "embedded_birds": ".embedded",
        "flip_noise": ".scenarios.label_noise",
        "generalised_long_tail": ".scenarios.glt",
        "group_proportions": ".groups",
        "index_hash": ".scenarios.long_tail",
        "load_classification_dataset": ".loading",
        "long_tail": ".scenarios.long_tail",
        "misleading_objects": ".scenarios.misleading_objects",
        "similar_classes": ".scenarios.label_noise",
        "uniform_noise": ".scenarios.label_noise",
    },
)
