"""What CLP's head is compared with, seen from the Trainer: `train` replaces the head by that of a method."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils.data import Dataset

from ..data.checks import check_labels, column, shared_images
from ..data.meta_set import split_meta_set
from ..features.feature_set import FeatureSet, Head
from ..features.trainer import HeadArguments, HeadTrainer
from ..hub.card import CardDetails
from .afr import DEFAULT_SETTINGS as AFR_SETTINGS
from .afr import afr
from .classifier_retraining import DEFAULT_SETTINGS as RETRAINING_SETTINGS
from .classifier_retraining import crt, lws
from .dfr import DEFAULT_SETTINGS as DFR_SETTINGS
from .dfr import check_fitted, dfr
from .group_dro import DEFAULT_SETTINGS as GROUP_DRO_SETTINGS
from .group_dro import group_dro
from .gsr import DEFAULT_SETTINGS as GSR_SETTINGS
from .gsr import gsr
from .head import HeadResult, Settings
from .jtt import DEFAULT_SETTINGS as JTT_SETTINGS
from .jtt import jtt
from .logistic_regression import BALANCES, logistic_regression
from .logistic_regression import DEFAULT_SETTINGS as REGRESSION_SETTINGS
from .selection_by_disagreement import DEFAULT_SETTINGS as SELF_SETTINGS
from .selection_by_disagreement import self_disagreement
from .tde import DEFAULT_SETTINGS as TDE_SETTINGS
from .tde import tde

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


class TrainingSetTrainer(BaselineTrainer):
    """Learns from the training images alone; validation chooses the setting.

    Args:
        model: an image classifier of `load_image_classifier`.
        args: `HeadArguments`.
        train_dataset: map-style, with **evaluation transforms**: features are computed once. Items as for `CLPTrainer`.
        eval_dataset: the validation set, which chooses the setting.
        **kwargs: as for `Trainer`; and `card_details`.

    Raises:
        ValueError: a set is missing or has no labels.
    """

    def __init__(self, model=None, args: HeadArguments | None = None, **kwargs):
        super().__init__(model, args or HeadArguments(), **kwargs)
        self._check_sets(training=self.train_dataset, validation=self.eval_dataset)

    def _check_groups(self, fix: str) -> None:
        """Whether training images have any."""
        if column(self.train_dataset, "group") is None:
            raise ValueError(f"{self.NAME} needs the group of every training image, and they have none. {fix}")

    def _method(self, train: FeatureSet, validation: FeatureSet, head: Head, seed: int) -> HeadResult:
        """The method, a function of `clp_hf.baselines`."""
        raise NotImplementedError

    def _fit(self, head: Head) -> HeadResult:
        train, validation = self.features(self.train_dataset), self.features(self.eval_dataset)
        return self._method(train, validation, head, seed=self.args.seed)


class AFRTrainer(TrainingSetTrainer):
    """Trains the final linear layer on where it is wrong (`afr`); the backbone stays as it is.

    The rest as of `TrainingSetTrainer`.
    """

    NAME, CARD, SETTINGS, _method = "AFR", "afr", AFR_SETTINGS, staticmethod(afr)


class JTTTrainer(TrainingSetTrainer):
    """Trains the final linear layer twice, then more on what it got wrong (`jtt`); the backbone stays as it is.

    The rest as of `TrainingSetTrainer`.
    """

    NAME, CARD, SETTINGS, _method = "JTT of the head", "jtt", JTT_SETTINGS, staticmethod(jtt)


class CRTTrainer(TrainingSetTrainer):
    """Trains a new final linear layer on classes that come equally often (`crt`); the backbone stays as it is.

    The rest as of `TrainingSetTrainer`.
    """

    NAME, CARD, SETTINGS, _method = "cRT", "crt", RETRAINING_SETTINGS, staticmethod(crt)


class LWSTrainer(TrainingSetTrainer):
    """Scales the final linear layer by a factor of every class (`lws`); the backbone stays as it is.

    The rest as of `TrainingSetTrainer`.
    """

    NAME, CARD, SETTINGS, _method = "LWS", "lws", RETRAINING_SETTINGS, staticmethod(lws)


class TDETrainer(TrainingSetTrainer):
    """Takes the features' mean direction out of the final linear layer (`tde`); the backbone stays as it is.

    The rest as of `TrainingSetTrainer`.
    """

    NAME, CARD, SETTINGS, _method = "De-confound-TDE", "tde", TDE_SETTINGS, staticmethod(tde)


class SELFTrainer(TrainingSetTrainer):
    """Tunes the final linear layer on what it disagrees with itself about (`self_disagreement`); the backbone stays.

    It learns from one half of validation, and the other half chooses the setting. The rest as of `TrainingSetTrainer`.
    """

    NAME, CARD, SETTINGS, _method = "SELF", "self", SELF_SETTINGS, staticmethod(self_disagreement)


class GroupDROTrainer(TrainingSetTrainer):
    """Trains the final linear layer for its worst training group (`group_dro`); the backbone stays as it is.

    The rest as of `TrainingSetTrainer`; the training images have groups.
    """

    NAME, CARD, SETTINGS, _method = (
        "GroupDRO of the head",
        "group-dro-head",
        GROUP_DRO_SETTINGS,
        staticmethod(group_dro),
    )

    def __init__(self, model=None, args: HeadArguments | None = None, **kwargs):
        super().__init__(model, args, **kwargs)
        self._check_groups("DFR needs those of validation alone, JTT and AFR none.")


@dataclass
class RegressionArguments(HeadArguments):
    """`HeadArguments`, and what counts alike."""

    balance: str = field(
        default="class",
        metadata={
            "help": "What counts alike in training: every class, or every group, which every training image must have.",
            "choices": list(BALANCES),
        },
    )

    def __post_init__(self):
        super().__post_init__()
        if self.balance not in BALANCES:
            raise ValueError(f"balance is {self.balance!r}; choose one of {', '.join(BALANCES)}.")


class RegressionTrainer(TrainingSetTrainer):
    """Trains the final linear layer by logistic regression on balanced training images; the backbone stays as it is.

    The rest as of `TrainingSetTrainer`; with `args.balance="group"` the training images have groups.
    """

    NAME, CARD, SETTINGS = "balanced regression", "regression", REGRESSION_SETTINGS

    def __init__(self, model=None, args: RegressionArguments | None = None, **kwargs):
        super().__init__(model, args or RegressionArguments(), **kwargs)
        if self.args.balance == "group":
            self._check_groups("Balance classes: balance='class'.")

    def _method(self, *args, **kwargs) -> HeadResult:
        return logistic_regression(*args, **kwargs, balance=self.args.balance)


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
        on, meta_dataset = self.args.on, self._read(meta_dataset, "meta set")
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
