"""A Trainer whose training loss is one of `clp_hf.baselines.losses`."""

import os
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .baselines.losses import TrainingLoss, build_loss, needs_groups
from .data.contract import check_labels, column
from .group_trainer import GroupTrainer
from .modeling import ComposedHead, find_classifier_head, forward_with_features, set_head
from .precision import at_least_float32

LOSS_STATE_FILE = "training_loss.pt"


class LossTrainer(GroupTrainer):
    """`GroupTrainer` that trains by `args.training_loss`; evaluation is by cross-entropy, whatever trains.

    Attributes:
        training_loss: None for `"cross_entropy"`, where this is the plain Trainer.

    Raises:
        ValueError: what `build_loss` refuses, or a setting that this loss would silently ignore.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.training_loss: TrainingLoss | None = None
        name, options = self.args.training_loss, self.args.training_loss_options
        if name == "cross_entropy":
            if options:
                raise ValueError(f"training_loss='cross_entropy' has no options; found {options}.")
            return
        for setting, expected in (("meta_every", 0), ("label_smoothing_factor", 0.0)):
            if (value := getattr(self.args, setting)) != expected:
                raise ValueError(f"training_loss={name!r} goes with {setting}={expected} only; found {value}.")
        if not hasattr(self.train_dataset, "__len__"):
            raise ValueError(f"training_loss={name!r} needs a train_dataset with a length, for its class frequencies.")
        num_labels = self.model.config.num_labels
        labels = check_labels(column(self.train_dataset, "labels"), num_labels, "training set")
        groups = column(self.train_dataset, "group") if needs_groups(name) else None
        self.training_loss = build_loss(
            name,
            torch.as_tensor(labels),
            num_labels,
            None if groups is None else torch.as_tensor(groups),
            options,
        ).to(self.args.device)
        self.loss_is_scaled_for_ga = False  # a mean over the micro-batch

    def create_optimizer(self, *args, **kwargs):
        """As in Trainer; for cosines the head's rows are brought back to unit length after every step."""
        optimizer = super().create_optimizer(*args, **kwargs)
        if self.training_loss is not None and self.training_loss.takes_cosines:
            example = self.train_dataset[0]["pixel_values"][None].to(self.args.device)
            _, self.head = find_classifier_head(self.model, example)
            _to_unit_rows(self.head)
            optimizer.register_step_post_hook(lambda *_: _to_unit_rows(self.head))
        return optimizer

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """The training loss of a training batch; of any other the plain Trainer's."""
        if self.training_loss is None or return_outputs or not model.training:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        self.training_loss.progress = self.state.global_step / self.state.max_steps
        return self.training_loss.of_batch(partial(self._training_logits, model), inputs)

    def _training_logits(self, model: nn.Module, pixel_values: Tensor) -> Tensor:
        if self.training_loss.takes_cosines:
            logits, features = forward_with_features(model, self.head, pixel_values)
            return at_least_float32(logits) / at_least_float32(features).norm(dim=-1, keepdim=True).clamp(min=1e-6)
        return at_least_float32(model(pixel_values=pixel_values).logits)

    def _save_optimizer_and_scheduler(self, output_dir):
        super()._save_optimizer_and_scheduler(output_dir)
        if self.training_loss is not None and self.args.should_save:
            torch.save(self.training_loss.state_dict(), os.path.join(output_dir, LOSS_STATE_FILE))

    def _load_optimizer_and_scheduler(self, checkpoint):
        super()._load_optimizer_and_scheduler(checkpoint)
        if self.training_loss is None or checkpoint is None:
            return
        path = os.path.join(checkpoint, LOSS_STATE_FILE)
        if not os.path.isfile(path):
            raise ValueError(
                f"{checkpoint} has no {LOSS_STATE_FILE}: it was not written with training_loss="
                f"{self.args.training_loss!r}. Resume one that was, or start anew."
            )
        self.training_loss.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))


def _to_unit_rows(head: nn.Linear | ComposedHead) -> None:
    """Make the logits of `head` the features' lengths times their cosines with its rows."""
    weight = head.weight.detach()
    set_head(head, F.normalize(weight, dim=-1), torch.zeros_like(weight[:, 0]))
