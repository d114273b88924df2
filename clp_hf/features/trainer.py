"""What trainers have in common that replace the final linear layer alone: `train` does, all else is the Trainer's."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset
from transformers.trainer_utils import TrainOutput
from transformers.utils import logging

from ..base.publishing import PublishingTrainer
from ..hub.arguments import PublishedArguments
from ..hub.card import CardDetails
from ..modeling.head import find_classifier_head, head_layers, set_head
from ..modeling.identity import model_fingerprint
from .extraction import data_fingerprint, extract_features
from .feature_set import FeatureSet, Head

logger = logging.get_logger(__name__)


@dataclass
class HeadArguments(PublishedArguments):
    """`transformers.TrainingArguments`, and where features are kept.

    Of `TrainingArguments` a `HeadTrainer` uses `output_dir`, `seed`, the evaluation batch size, and what saves, logs
    and pushes.

    Attributes:
        UNUSED: those that are of training by steps, of which there are none.
    """

    UNUSED = (
        "per_device_train_batch_size", "gradient_accumulation_steps", "num_train_epochs", "max_steps", "learning_rate",
        "lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps", "optim", "optim_args", "weight_decay", "adam_beta1",
        "adam_beta2", "adam_epsilon", "max_grad_norm", "label_smoothing_factor", "eval_strategy", "eval_steps",
        "eval_delay", "eval_on_start", "save_strategy", "save_steps", "save_total_limit", "save_only_model",
        "load_best_model_at_end", "metric_for_best_model", "greater_is_better", "resume_from_checkpoint",
        "ignore_data_skip", "restore_callback_states_from_checkpoint",
    )  # fmt: skip

    feature_cache: str | None = field(
        default=None, metadata={"help": "Folder where features are kept; by default features in output_dir."}
    )
    remove_unused_columns: bool = field(default=False, metadata={"help": "As in TrainingArguments."})


class SeenImages(Dataset):
    """Labels and logits of images, in their order.

    Args:
        images: a data set.
        seen: of all of them.
    """

    def __init__(self, images: Dataset, seen: FeatureSet):
        self.images = images
        self.columns = {"labels": seen.labels, "logits": seen.logits}
        if seen.groups is not None:
            self.columns["group"] = seen.groups

    def __len__(self) -> int:
        return len(self.columns["labels"])

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {name: column[index] for name, column in self.columns.items()}


class HeadTrainer(PublishingTrainer):
    """Retrains the final linear layer of a classifier on features of its backbone, which stays as it is.

    Args:
        *args, **kwargs: as for `Trainer`; data sets are of `datasets`, or map-style with **evaluation transforms**, as
            features are computed once. And `columns` and `card_details`, as for `CLPTrainer`.

    Attributes:
        NAME: of the method, as it is told.
        CARD: its template in `hub_cards`.
        result: how the head came about, after `train`.
    """

    AUGMENTS = False
    NAME: str
    CARD: str
    result: Any = None

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._seen: dict[tuple[str, str], FeatureSet] = {}  # by backbone and data set

    def features(self, dataset: Dataset) -> FeatureSet:
        """Features of a data set, which are computed once, and the logits that the head makes of them now."""
        dataset = self._read(dataset, "data set")
        _, head = find_classifier_head(self.model, dataset[0]["pixel_values"][None])
        key = model_fingerprint(self.model, head_layers(head)), data_fingerprint(dataset)
        if key not in self._seen:
            self._seen[key] = extract_features(self.model, dataset, self.args, self._cache, self.data_collator)
        seen = self._seen[key]
        return replace(seen, logits=Head.of(head).logits(seen.features))

    def evaluation_loop(self, dataloader, *args, **kwargs):
        """As in Trainer, on images with labels by their features, so that the backbone sees no image twice."""
        images = dataloader.dataset
        labelled = not isinstance(images, IterableDataset) and "labels" in images[0]
        if labelled and "inputs" not in self.args.include_for_metrics:
            seen = SeenImages(images, self.features(images))
            dataloader = self.accelerator.prepare(DataLoader(seen, self.args.eval_batch_size))
        return super().evaluation_loop(dataloader, *args, **kwargs)

    def _images_of(self, evaluated):
        return evaluated.images if isinstance(evaluated, SeenImages) else evaluated

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """As in Trainer; what comes of `SeenImages` is predicted already."""
        if "logits" not in inputs:
            return super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)
        inputs = self._prepare_inputs(inputs)
        labels = (inputs["labels"], inputs["group"]) if "group" in inputs else inputs["labels"]
        loss = F.cross_entropy(inputs["logits"], inputs["labels"])
        return (loss, None, None) if prediction_loss_only else (loss, inputs["logits"], labels)

    @property
    def _cache(self) -> str:
        return self.args.feature_cache or f"{self.args.output_dir}/features"

    def train(self, resume_from_checkpoint=None, **kwargs) -> TrainOutput:
        """Put the head that is learned into the model.

        Raises:
            ValueError: the final linear layer of the model has no bias, or there is a checkpoint to resume from.
        """
        if resume_from_checkpoint:
            raise ValueError(
                f"resume_from_checkpoint is {resume_from_checkpoint!r}, and a head is learned in one go, without "
                "checkpoints: leave it out. Features that have been computed are found again."
            )
        with self._publishing.timed():
            example = self.train_dataset[0]["pixel_values"][None].to(self.args.device)
            _, layer = find_classifier_head(self.model, example)
            if layer.bias is None:
                raise ValueError(
                    f"{self.NAME} trains weight and bias, and the final linear layer of this model has no bias."
                )
            before = Head.of(layer)
            head = self._learn(before)
            self._warn_of_a_worse_head(before, head)
            set_head(layer, *head)
        self.state.global_step = max(self.state.global_step, 1)  # a head that was solved for has been trained
        metrics = {"train_runtime": self._publishing.runtime, "selection_score": self.score}
        self.log(metrics)
        return TrainOutput(self.state.global_step, 0.0, metrics)

    def _warn_of_a_worse_head(self, before: Head, head: Head) -> None:
        """A repair of what was not broken does harm."""
        if self.eval_dataset is None:
            return
        validation = self.features(self.eval_dataset)
        (old, old_average), (new, new_average) = before.accuracy(validation), head.accuracy(validation)
        if new < old:
            cell = "class" if validation.groups is None else "group"
            logger.warning(
                f"On validation the head as it was is better: the worst {cell} {old:.1%}, now {new:.1%}; the average "
                f"{old_average:.1%}, now {new_average:.1%}. If validation is like the images that will come, keep the "
                "classifier that was to be repaired."
            )

    def _learn(self, head: Head) -> Head:
        """The new head, in the place of this one; sets `result`."""
        raise NotImplementedError

    @property
    def score(self) -> float:
        """What `result` was chosen by."""
        return self.result.score

    @property
    def rule(self) -> str:
        """What that is, in words."""
        return self.result.rule

    def summary(self) -> str:
        """How the head came about, in a line."""
        return f"{self.result.settings}; {self.rule}"

    def _facts(self, details: CardDetails) -> dict[str, Any]:
        """The variables of the card beyond those of every card."""
        raise NotImplementedError

    def _training_settings(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Without those of `TrainingArguments`, by which nothing is trained here but what the seed draws."""
        return {}, {"seed": self.args.seed, **super()._training_settings()[1]}

    def _card(self, details: CardDetails) -> tuple[str, dict[str, Any]]:
        if self.result is None:
            raise ValueError(f"There is no {self.NAME} head to tell of yet: call train() first.")
        return self.CARD, self._facts(details)
