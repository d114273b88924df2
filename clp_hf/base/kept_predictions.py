"""The predictions of a trainer's evaluations, kept until they are written beside the model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
from torch.utils.data import Dataset
from transformers.trainer_utils import EvalLoopOutput, has_length

from ..data.identities import image_identities
from ..hub.history import split_names
from ..hub.predictions import PREDICTIONS_FILE, Predictions
from ..metrics import logits_labels_groups

FIRST = ("test", "eval")  # of the splits, whose predictions are written


class Kept(NamedTuple):
    """An evaluation: of which weights (their fingerprint), on what, and what came out."""

    weights: int
    dataset: Dataset
    output: EvalLoopOutput


class KeptPredictions:
    """The latest evaluation of every split."""

    def __init__(self):
        self._latest: tuple[Dataset, EvalLoopOutput] | None = None
        self._kept: dict[str, Kept] = {}

    def evaluated(self, dataset: Dataset, output: EvalLoopOutput) -> None:
        """Note what an evaluation gave, which is logged next."""
        self._latest = (dataset, output)

    def logged(self, prefixes: Sequence[str], weights: int) -> None:
        """Note which evaluation that was, by the prefix of its metrics, and of which weights."""
        if prefixes and self._latest is not None:
            self._kept[min(prefixes, key=len)] = Kept(weights, *self._latest)
        self._latest = None

    def of(self, weights: int, has_groups: bool) -> tuple[Predictions, Dataset] | None:
        """The predictions of these weights on the test split, else on validation, else on any; None without any.

        None too where they are not (n, C) logits of the n images of a data set, each with a label in 0 ... C - 1.
        """
        found = [prefix for prefix, kept in self._kept.items() if kept.weights == weights]
        if not found:
            return None
        prefix = next((first for first in FIRST if first in found), found[0])
        dataset, output = self._kept[prefix][1:]
        if output.predictions is None or output.label_ids is None:
            return None
        logits, labels, groups = logits_labels_groups(
            SimpleNamespace(predictions=output.predictions, label_ids=output.label_ids)
        )
        if np.ndim(logits) != 2 or np.shape(labels) != (len(logits),) or not has_length(dataset):
            return None
        size = len(labels)
        if size != len(dataset) or not np.isin(labels, range(logits.shape[1])).all():
            return None
        groups = groups if has_groups else None
        split = split_names([prefix])[prefix]
        return Predictions.of(split, logits, labels, groups, *image_identities(dataset, size)), dataset


def forget_predictions(folder: str | os.PathLike) -> None:
    """Remove those of other weights from the folder of a run."""
    (Path(folder) / PREDICTIONS_FILE).unlink(missing_ok=True)
