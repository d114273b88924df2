"""What CLP's head is compared with, seen from the Trainer: `train` replaces the head by that of a method."""

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
from .gsr import DEFAULT_SETTINGS as GSR_SETTINGS
from .gsr import gsr
from .head import HeadResult, Settings

SETS = ("validation", "meta")


class BaselineTrainer(HeadTrainer):
    """Retrains the final linear layer by a method with a `HeadResult`; the backbone stays as it is.

    Attributes:
        SETTINGS: that are tried.
        result: the `HeadResult`, after `train`.
    """

    SETTINGS: Settings

    def _check_sets(self, **sets: Dataset | None) -> None:
        """Whether they are there, and have labels."""
        for name, dataset in sets.items():
            if dataset is None:
                raise ValueError(f"{self.NAME} needs a {name} set, and there is none.")
            check_labels(column(dataset, "labels"), self.model.config.num_labels, f"{name} set")

    def _learn(self, head: Head) -> Head:
        self.result = self._fit(head)
        return Head(self.result.weight, self.result.bias)

    def _fit(self, head: Head) -> HeadResult:
        """The result, in the place of this head."""
        raise NotImplementedError

    def _facts(self, details: CardDetails) -> dict[str, Any]:
        return {
            "method_settings": self.result.settings,
            "rule": self.rule,
            "score": self.score,
            "trials": len(self.SETTINGS),
        }


class AFRTrainer(BaselineTrainer):
    """Trains the final linear layer on where it is wrong (`afr`); the backbone stays as it is.

    Args:
        model: an image classifier of `load_image_classifier`.
        args: `HeadArguments`.
        train_dataset: map-style, with **evaluation transforms**: features are computed once. Items as for `CLPTrainer`.
        eval_dataset: the validation set, which chooses the setting.
        **kwargs: as for `Trainer`; and `card_details`.

    Raises:
        ValueError: a set is missing or has no labels.
    """

    NAME, CARD, SETTINGS = "AFR", "afr", AFR_SETTINGS

    def __init__(self, model=None, args: HeadArguments | None = None, **kwargs):
        super().__init__(model, args or HeadArguments(), **kwargs)
        self._check_sets(training=self.train_dataset, validation=self.eval_dataset)

    def _fit(self, head: Head) -> HeadResult:
        return afr(self.features(self.train_dataset), self.features(self.eval_dataset), head, seed=self.args.seed)


@dataclass
class KnownGroupsArguments(HeadArguments):
    """`HeadArguments`, and whose groups a method learns from."""

    on: str = field(
        default="validation",
        metadata={
            "help": "Whose groups it learns from: validation, as published, or meta, the few images that CLP learns "
            "from.",
            "choices": list(SETS),
        },
    )
    meta_samples: int = field(
        default=10,
        metadata={
            "help": "Images of every group taken out of the training set, when no meta_dataset is given and it learns "
            "from that."
        },
    )

    def __post_init__(self):
        super().__post_init__()
        if self.on not in SETS:
            raise ValueError(f"on is {self.on!r}; choose one of {', '.join(SETS)}.")


class KnownGroupsTrainer(BaselineTrainer):
    """Learns from images of known group.

    Args:
        model: an image classifier of `load_image_classifier`.
        args: `KnownGroupsArguments`.
        train_dataset: map-style, with **evaluation transforms**: features are computed once. Items as for `CLPTrainer`.
        meta_dataset: what it learns from with `args.on="meta"`, with groups; by default `args.meta_samples` images of
            every group are taken out of the training set.
        eval_dataset: the validation set; what it learns from with `args.on="validation"`, with groups.
        **kwargs: as for `Trainer`; and `card_details`.

    Attributes:
        target: the data set of known groups.

    Raises:
        ValueError: a set is missing or has no labels; or the target has no groups, a group of one image, lacks a class,
            or shares images with the training set.
    """

    def __init__(self, model=None, args: KnownGroupsArguments | None = None, *, meta_dataset=None, **kwargs):
        super().__init__(model, args or KnownGroupsArguments(), **kwargs)
        on = self.args.on
        if on == "meta" and meta_dataset is None:
            self.train_dataset, meta_dataset = split_meta_set(
                self.train_dataset, self.args.meta_samples, self.args.seed
            )
        self.target = meta_dataset if on == "meta" else self.eval_dataset
        self._check_sets(**{"training": self.train_dataset, on: self.target})
        labels, groups = (column(self.target, name) for name in ("labels", "group"))
        groups = None if groups is None else torch.from_numpy(groups)
        check_fitted(torch.from_numpy(labels), groups, self.model.config.num_labels, on, self.NAME)
        if len(rows := shared_images(self.target, self.train_dataset)):
            raise ValueError(
                f"{self.NAME} learns from the {on} set, of which {len(rows)} images are training images too, the first "
                f"is image {rows[0]}: the backbone knows them. Take them out of the training set."
            )

    def _facts(self, details: CardDetails) -> dict[str, Any]:
        return super()._facts(details) | {"target": self.args.on, "target_size": len(self.target)}


class DFRTrainer(KnownGroupsTrainer):
    """Trains the final linear layer on group-balanced images (`dfr`); the backbone stays as it is.

    Of the training set come the mean and the spread of the features alone. The rest as of `KnownGroupsTrainer`.
    """

    NAME, CARD, SETTINGS = "DFR", "dfr", DFR_SETTINGS

    def _fit(self, head: Head) -> HeadResult:
        train, target = self.features(self.train_dataset), self.features(self.target)
        return dfr(train, target, head, seed=self.args.seed, fitted_on=self.args.on)


class GSRTrainer(KnownGroupsTrainer):
    """Trains the final linear layer on training images weighted for the target's groups (`gsr`); the backbone stays.

    Validation chooses the setting. The rest as of `KnownGroupsTrainer`.
    """

    NAME, CARD, SETTINGS = "GSR", "gsr", GSR_SETTINGS

    def __init__(self, model=None, args: KnownGroupsArguments | None = None, **kwargs):
        super().__init__(model, args, **kwargs)
        self._check_sets(validation=self.eval_dataset)

    def _fit(self, head: Head) -> HeadResult:
        train, validation = self.features(self.train_dataset), self.features(self.eval_dataset)
        return gsr(train, validation, head, seed=self.args.seed, target=self.features(self.target))
