"""Deep Feature Reweighting and Automatic Feature Reweighting, seen from the Trainer: `train` replaces the head."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils.data import Dataset

from ..data.checks import check_labels, column, shared_images
from ..data.meta_set import split_meta_set
from ..features.feature_set import Head
from ..features.trainer import HeadArguments, HeadTrainer
from ..hub.card import CardDetails
from .afr import DEFAULT_SETTINGS as AFR_SETTINGS
from .afr import afr
from .dfr import DEFAULT_SETTINGS as DFR_SETTINGS
from .dfr import check_fitted, dfr

SETS = ("validation", "meta")


class AFRTrainer(HeadTrainer):
    """Retrains the final linear layer where it is wrong (`afr`); the backbone stays as it is.

    Args:
        model: an image classifier of `load_image_classifier`.
        args: `HeadArguments`.
        train_dataset: map-style, with **evaluation transforms**: features are computed once. Items as for `CLPTrainer`.
        eval_dataset: the validation set, which chooses the setting.
        **kwargs: as for `Trainer`; and `card_details`.

    Attributes:
        result: the `HeadResult`, after `train`.

    Raises:
        ValueError: a set is missing or has no labels.
    """

    NAME, CARD = "AFR", "afr"

    def __init__(self, model=None, args: HeadArguments | None = None, **kwargs):
        super().__init__(model, args or HeadArguments(), **kwargs)
        _check(self, training=self.train_dataset, validation=self.eval_dataset)

    def _learn(self, head: Head) -> Head:
        self.result = afr(
            self.features(self.train_dataset), self.features(self.eval_dataset), head, seed=self.args.seed
        )
        return Head(self.result.weight, self.result.bias)

    def _facts(self, details: CardDetails) -> dict[str, Any]:
        return {
            "method_settings": self.result.settings,
            "rule": self.rule,
            "score": self.score,
            "trials": len(AFR_SETTINGS),
        }


@dataclass
class DFRArguments(HeadArguments):
    """`HeadArguments`, and which images Deep Feature Reweighting is fitted on."""

    on: str = field(
        default="validation",
        metadata={
            "help": "What it is fitted on: validation, as published, or meta, the few images that CLP learns from.",
            "choices": list(SETS),
        },
    )
    meta_samples: int = field(
        default=10,
        metadata={
            "help": "Images of every group taken out of the training set, when no meta_dataset is given and it is "
            "fitted on that."
        },
    )

    def __post_init__(self):
        super().__post_init__()
        if self.on not in SETS:
            raise ValueError(f"on is {self.on!r}; choose one of {', '.join(SETS)}.")


class DFRTrainer(HeadTrainer):
    """Retrains the final linear layer on group-balanced images (`dfr`); the backbone stays as it is.

    Args:
        model: an image classifier of `load_image_classifier`.
        args: `DFRArguments`.
        train_dataset: map-style, with **evaluation transforms**: features are computed once. It standardises them.
        meta_dataset: what it is fitted on with `args.on="meta"`, with groups; by default `args.meta_samples` images of
            every group are taken out of the training set.
        eval_dataset: the validation set; what it is fitted on with `args.on="validation"`, with groups.
        **kwargs: as for `Trainer`; and `card_details`.

    Attributes:
        fitted_on: the data set that it is fitted on.
        result: the `HeadResult`, after `train`.

    Raises:
        ValueError: a set is missing or has no labels; or what it is fitted on has no groups, a group of one image,
            lacks a class, or shares images with the training set.
    """

    NAME, CARD = "DFR", "dfr"

    def __init__(self, model=None, args: DFRArguments | None = None, *, meta_dataset=None, **kwargs):
        super().__init__(model, args or DFRArguments(), **kwargs)
        if self.args.on == "meta" and meta_dataset is None:
            self.train_dataset, meta_dataset = split_meta_set(
                self.train_dataset, self.args.meta_samples, self.args.seed
            )
        self.fitted_on = meta_dataset if self.args.on == "meta" else self.eval_dataset
        _check(self, **{"training": self.train_dataset, self.args.on: self.fitted_on})
        labels, groups = (column(self.fitted_on, name) for name in ("labels", "group"))
        groups = None if groups is None else torch.from_numpy(groups)
        check_fitted(torch.from_numpy(labels), groups, self.model.config.num_labels, self.args.on)
        if len(rows := shared_images(self.fitted_on, self.train_dataset)):
            raise ValueError(
                f"DFR is fitted on the {self.args.on} set, of which {len(rows)} images are training images too, the "
                f"first is image {rows[0]}: the backbone knows them. Take them out of the training set."
            )

    def _learn(self, head: Head) -> Head:
        train, fitted_on = self.features(self.train_dataset), self.features(self.fitted_on)
        self.result = dfr(train, fitted_on, head, seed=self.args.seed, fitted_on=self.args.on)
        return Head(self.result.weight, self.result.bias)

    def _facts(self, details: CardDetails) -> dict[str, Any]:
        return {
            "method_settings": self.result.settings,
            "rule": self.rule,
            "score": self.score,
            "trials": len(DFR_SETTINGS),
            "fitted_on": self.args.on,
            "fitted_size": len(self.fitted_on),
        }


def _check(trainer: HeadTrainer, **sets: Dataset | None) -> None:
    """Whether the sets are there, and have labels."""
    for name, dataset in sets.items():
        if dataset is None:
            raise ValueError(f"{trainer.NAME} needs a {name} set, and there is none.")
        check_labels(column(dataset, "labels"), trainer.model.config.num_labels, f"{name} set")
