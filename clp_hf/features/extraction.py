"""Features of a frozen backbone over a data set: computed once, kept on disk, never stale."""

from __future__ import annotations

import copy
import hashlib
import logging
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from torch import nn
from torch.utils.data import Dataset, Subset
from transformers import TrainingArguments
from transformers.trainer_utils import IntervalStrategy

from ..base.trainer import BaseTrainer
from ..data.dataset import ImageClassificationDataset
from ..modeling.head import ComposedHead, find_classifier_head, forward_with_features
from ..modeling.identity import model_fingerprint
from .feature_set import FeatureSet

logger = logging.getLogger(__name__)


def extract_features(
    model: nn.Module,
    dataset: Dataset,
    args: TrainingArguments,
    cache_dir: str | os.PathLike | None = None,
    data_collator: Callable | None = None,
) -> FeatureSet:
    """Features and logits of every image of a data set, from the cache where they are known already.

    Runs as `Trainer.predict` does: in batches of `args.per_device_eval_batch_size`, with a progress bar, on all
    processes of `accelerate launch`.

    Args:
        model: an image classifier of `load_image_classifier`; it is put into evaluation mode.
        dataset: map-style, with evaluation transforms; items hold `pixel_values`, `labels` and maybe `group`.
        args: of a Trainer.
        cache_dir: where feature sets are kept, one file per fingerprint of weights, data and transforms; None: nowhere.
        data_collator: as for `Trainer`.

    Raises:
        ValueError: no labels, features that are not finite, or a model without a final linear layer.
    """
    path = fingerprint = None
    if cache_dir is not None:
        fingerprint = _fingerprint(model, dataset)
        path = Path(cache_dir) / f"{fingerprint[:24]}.safetensors"
        if path.exists():
            try:
                feature_set = FeatureSet.load(path, fingerprint)
                logger.info("Features of %d images: from %s.", len(dataset), path)
                return feature_set
            except ValueError as error:  # the file has its name of the fingerprint: another one in it is damage too
                logger.warning("%s They are computed again.", error)
    if isinstance(dataset, ImageClassificationDataset):
        dataset.decode()  # once, not in every process of the data loader; and causal versions are made of them next
    extractor = _FeatureExtractor(model, args, data_collator=data_collator)
    output = extractor.predict(dataset)
    features, logits = (torch.from_numpy(array) for array in output.predictions)
    labels = output.label_ids if isinstance(output.label_ids, tuple) else (output.label_ids,)
    feature_set = FeatureSet(features, logits, *(torch.from_numpy(array) for array in labels))
    if path is not None and args.should_save:
        feature_set.save(path, fingerprint)
    PartialState().wait_for_everyone()  # else one process might soon find the file and another not
    return feature_set


class _FeatureExtractor(BaseTrainer):
    """A Trainer that predicts features beside logits."""

    def __init__(self, model, args, **kwargs):
        args = copy.copy(args)
        args.remove_unused_columns = False
        # What belongs to the run that `args` were made for: this one only predicts.
        args.eval_strategy, args.load_best_model_at_end = IntervalStrategy.NO, False
        args.push_to_hub, args.report_to = False, []
        super().__init__(model, args, compute_metrics=None, **kwargs)
        self.head: nn.Linear | ComposedHead | None = None

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        inputs = self._prepare_inputs(inputs)
        if self.head is None:
            self.head = find_classifier_head(model, inputs["pixel_values"][:2])[1]
        with torch.no_grad():
            logits, features = forward_with_features(model, self.head, inputs["pixel_values"])
        labels = tuple(inputs[name].long() for name in ("labels", "group") if name in inputs)
        return None, (features.float(), logits.float()), labels


def _fingerprint(model: nn.Module, dataset: Dataset) -> str:
    return hashlib.sha256(f"{model_fingerprint(model)} {data_fingerprint(dataset)}".encode()).hexdigest()


def data_fingerprint(dataset: Dataset) -> str:
    """Differs where what a data set gives does."""
    if isinstance(dataset, Subset):
        return f"{data_fingerprint(dataset.dataset)} {list(dataset.indices)}"
    if hasattr(dataset, "fingerprint"):
        return dataset.fingerprint
    digest = hashlib.sha256()  # reading all images costs less than what the cache saves
    for index in range(len(dataset)):
        item = dataset[index]
        for name in ("pixel_values", "labels", "group"):
            if name in item:
                digest.update(np.ascontiguousarray(item[name]).tobytes())
    return digest.hexdigest()
