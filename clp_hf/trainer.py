"""`CLPTrainer`: a `transformers.Trainer` whose training step is a step of what it learns by, its objective."""

import os
from functools import partial
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.utils.data import IterableDataset
from transformers import TrainerCallback
from transformers.utils import logging

from .assembly import Data, build_objective, build_training_images
from .base.finite import StepGuard
from .base.publishing import PublishingTrainer
from .base.requirements import (
    refuse_data_parallel,
    refuse_streams,
    refuse_what_hides_parameters,
    refuse_what_splits_networks,
)
from .bilevel import whole
from .data.checks import check_batch_labels, check_every_class, check_labels, stored_column
from .data.frequencies import train_sampler
from .data.sampling import tell_repeated_images
from .data.scheduled import ScheduledSampler
from .data.seeding import SeededDataset
from .hub.card import CardDetails
from .hub.record import own_settings
from .losses import is_pair
from .losses.objective import Run
from .modeling.identity import label_names
from .modeling.loading import load_image_classifier
from .modeling.modes import evaluation_mode
from .perturbation import MetaNetwork
from .schedules import SCHEDULES, build_schedule
from .training_args import CLPTrainingArguments

logger = logging.get_logger(__name__)


class CLPTrainer(PublishingTrainer):
    """A `Trainer` whose training step is one step of CLP (Algorithm 1); everything else is as its users know it.

    A `datasets.Dataset` with a column of images is taken as it is: its label and, where there are any, group, mask, box
    and attribute are found by their usual names (or `columns`); training and meta images are cropped and flipped at
    random, others are what the model's image processor makes of them.

    Other data sets are map-style, of items with `pixel_values` (3, H, W), normalised for the model; `labels`, an
    integer; where there are any, `mask` (1, H, W) in [0, 1] with 1 on the causal foreground; `group`, an integer; and
    `noisy`, whether the label is known to be wrong, for the log alone. Training data may be a stream (an
    `IterableDataset`, with `max_steps` and a `meta_dataset`): its class proportions are then counted as the labels
    come. A data set whose items are no images can have a `causal_augmentation` of its own, which is called as
    `CausalAugmentation` is. Evaluation hands `compute_metrics` the label ids `(labels, groups)` where the data set has
    groups. `label_smoothing_factor` smooths the training loss (and, as in `Trainer`, the loss of evaluation), not the
    meta loss, which asks what the classifier says of clean labels.

    Args:
        model: an image classifier of transformers or timm.
        args: `CLPTrainingArguments`. With `meta_every=0` this is the plain `Trainer`, by `training_loss`.
        meta_dataset: the small, clean, balanced meta set. By default `args.meta_samples` images per group (per class
            without groups) are taken out of the training set.
        **kwargs: as for `Trainer`; `columns`, names of columns that are not the usual ones; and `card_details`, what
            the model card tells and the trainer cannot know.

    Attributes:
        learner: what it learns by: a `MetaLearner`, a `LossObjective`, or an `Objective`, the plain cross-entropy.
        training_images: puts training images before another background; None without `train_infills`.

    Raises:
        ValueError: whatever would make training fail or mislead: no meta set, a class without images in it, causal
            augmentation without masks, labels that are not integers in range, non-finite pixels, a batch of one with
            batch normalisation, a model without a final linear layer, `nn.DataParallel`, `torch.compile`. The message
            names the fix.
    """

    def __init__(
        self,
        model=None,
        args: CLPTrainingArguments | None = None,
        *,
        meta_dataset=None,
        **kwargs,
    ):
        refuse_data_parallel(model)
        if isinstance(model, nn.Module) and not hasattr(model, "config"):
            model = load_image_classifier(model)
        super().__init__(model, args or CLPTrainingArguments(), **kwargs)
        if self.args.train_sampling != "random":
            what = f"train_sampling is {self.args.train_sampling!r}"
            refuse_streams(self.train_dataset, what, "train_sampling='random'")
        self._guard = StepGuard(self, lambda: self.learner.keep())
        self.add_callback(self._guard)
        self.add_callback(_EpochCallback())
        meta_dataset = self._read(meta_dataset, "meta set", augmented=True)
        self._data = Data(self.train_dataset, meta_dataset, self.data_collator, self.processing_class)
        if self.args.meta_every:
            refuse_what_hides_parameters(self)
            self._data.prepare_for_meta_learning(self.args, self.model.config.num_labels)
            self.train_dataset = self._data.train
        elif is_pair(self.args.training_loss):
            refuse_what_splits_networks(self)
        self._check_training_labels()
        if self.args.train_infills and self.train_dataset is not None:
            self._data.check_train_infills(self.args, self.model.config.num_labels)
        self.training_images = build_training_images(self.args, self.model, self._data)
        self.learner = self._build_learner()

    def _check_training_labels(self) -> None:
        """One rule for all methods, as far as no image has to be decoded for it."""
        labels = None if self.train_dataset is None else stored_column(self.train_dataset, "labels")
        if labels is not None:
            check_labels(labels, self.model.config.num_labels, "training set", whole=False)
            check_every_class(labels, label_names(self.model), "training set")

    def _build_learner(self):
        return build_objective(
            self.args,
            self.model,
            self._data,
            lambda inputs: self._prepare_inputs(inputs),
            lambda: self.accelerator.autocast(),
        )

    @property
    def perturbation_network(self) -> MetaNetwork | None:
        """Ω, with `meta_network="weight"` a `WeightNetwork`; None where no network is meta-learned."""
        network = getattr(self.learner, "network", None)
        return None if network is None or network.OF_BATCH else network

    # ---- training ----------------------------------------------------------------------------------------------------

    def _prepare_for_training(self, max_steps, train_dataloader, resume_from_checkpoint):
        if self.args.meta_every and self._data.proportions is None:
            raise ValueError(
                f"meta_every is {self.args.meta_every} now, but was 0 when the trainer was built, which has no "
                "meta set therefore. Build it with meta_every above 0."
            )
        if not self.learner.is_of(self.model):
            # `model_init` has made another model, and a hyper-parameter search may have changed the arguments.
            self.learner = self._build_learner()
        self.training_images = build_training_images(self.args, self.model, self._data)
        return super()._prepare_for_training(max_steps, train_dataloader, resume_from_checkpoint)

    def create_optimizer(self, *args, **kwargs):
        """As in Trainer; what the objective does with every step begins here."""
        optimizer = super().create_optimizer(*args, **kwargs)
        self.learner.begin(getattr(optimizer, "optimizer", optimizer))  # in a second training accelerate has wrapped it
        return optimizer

    def create_scheduler(self, num_training_steps, optimizer=None):
        """The schedule of the arguments, with the step-wise decay of `lr_decay_at`, which transformers lacks."""
        if self.lr_scheduler is None and self.args.lr_decay_at:
            decays = [round(fraction * num_training_steps) for fraction in self.args.lr_decay_at]
            schedule = super().create_scheduler(num_training_steps, optimizer)
            schedule.lr_lambdas = [
                lambda step, factor=factor: factor(step) * 0.1 ** sum(step >= decay for decay in decays)
                for factor in schedule.lr_lambdas
            ]
        return super().create_scheduler(num_training_steps, optimizer)

    def _run(self, model: nn.Module) -> Run:
        scaler = self.accelerator.scaler
        return Run(
            model,
            self.optimizer,
            self.state.global_step,
            self.state.max_steps,
            self.accelerator.sync_gradients,
            None if scaler is None else scaler.get_scale(),
        )

    def training_step(self, model, inputs, num_items_in_batch=None) -> Tensor:
        """One step of the objective, Algorithm 1: look ahead, update Ω, then leave W's gradient for the optimizer."""
        run = self._run(model)
        if isinstance(self.train_dataset, IterableDataset):
            check_batch_labels(inputs["labels"], self.model.config.num_labels, run.step)
        if self.training_images is not None:
            inputs = self.training_images(self._prepare_inputs(inputs), partial(self._logits, model))
            self.learner.means.add("swapped_share", inputs["swapped"].sum(), len(inputs["swapped"]))
        if not self.learner.takes_step(run):
            return super().training_step(model, inputs, num_items_in_batch)
        model.train()
        if callable(getattr(self.optimizer, "train", None)):
            self.optimizer.train()
        batch = self._prepare_inputs(inputs)
        run.backward = partial(self._backward, batch)
        with self.compute_loss_context_manager():
            loss, failed = self.learner.training_step(run, batch)
        if failed and run.loss_scale is not None:
            # An overflow in Ω's gradient must lower the scale and skip the step of W too.
            for weight in self.model.parameters():
                if weight.grad is not None:
                    weight.grad.fill_(torch.inf)
        return loss

    def _backward(self, batch: dict[str, Any], loss: Tensor, retain_graph: bool = False) -> Tensor:
        loss = self._guard.watch(self._weighed(loss, batch), batch["pixel_values"])
        loss = loss / self.current_gradient_accumulation_steps
        self.accelerator.backward(loss, retain_graph=retain_graph)
        return loss.detach()

    def _logits(self, model: nn.Module, pixel_values: Tensor) -> Tensor:
        """Of the classifier as it will be used, past the hooks of its wrapper."""
        module = self.accelerator.unwrap_model(model)
        with evaluation_mode(module), self.accelerator.autocast():
            return module(pixel_values=pixel_values).logits

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """The objective's loss of a training batch; of any other the plain Trainer's."""
        if return_outputs or not model.training:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        loss = self.learner.loss(self._run(model), inputs)
        if loss is None:
            loss = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        return self._guard.watch(self._weighed(loss, inputs), inputs["pixel_values"])

    def _get_grad_norm(self, model, grad_norm=None):
        self._guard.gradient_norm = whole(super()._get_grad_norm(model, grad_norm))
        return self._guard.gradient_norm

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the means since the last log, over all processes, of what CLP recorded.

        `meta_loss`; `perturbation_size`, the mean |δ|; `hypergradient_direct` and `hypergradient_indirect`, norms;
        `meta_updates_skipped`, the share of updates with a non-finite meta loss; with `lookahead="converged"`
        `lookahead_waiting`, the share of updates that were due before enough was remembered, and
        `lookahead_not_converged`, of those made the share at a head that had not converged; for each class, where there
        are 20 at most, `perturbation_class_<c>`, δ of the own class over the mean of the others, and
        `loss_raised_class_<c>`, the share of samples whose loss δ raises; where groups are known,
        `perturbation_group_<g>` and `loss_raised_group_<g>`, the same of each group, and `signal_group_<g>`, the
        derivative of the meta loss in the own-class δ of a sample: positive where the sample should keep its weight
        (not with `lookahead="converged"`, which remembers no groups). Where items say whether they are `noisy`,
        `loss_raised_clean` and `loss_raised_noisy` (CLP, Figure 5).
        With `meta_network="weight"` they are `weight_size`, `weight_class_<c>` and `weight_group_<g>`, means of the
        sample weights. Losses of two networks log `weight_group_<g>`, `weight_clean` and `weight_noisy`. For each
        evidence `evidence_<kind>_agreement`, the share of samples of which it finds their own class the likeliest: near
        1 in a biased training set, near 1 / C where it says nothing. With every method `swapped_share`,
        of the training images the share that `train_infills` changed; and `steps_skipped`, where steps were left out
        because they were not finite.
        """
        if "loss" in logs:
            logs |= self.learner.means.take(gather_object)
            if self._guard.skipped:
                logs["steps_skipped"] = self._guard.skipped
                self._guard.skipped = 0
        super().log(logs, start_time)

    # ---- order of the training images --------------------------------------------------------------------------------

    def _get_dataloader(self, dataset, description, *args, is_training=False, **kwargs):
        if is_training and not isinstance(dataset, IterableDataset):
            tell_repeated_images(len(dataset), self.args)
        # Workers that live on draw on from where the last epoch ended, which no resumed run could know.
        seeds = self.learner.seeds_batches or self.args.train_infills or self.args.dataloader_persistent_workers
        seeds = seeds or self.args.train_sampling in SCHEDULES  # which go by the epoch
        if is_training and seeds and not isinstance(dataset, IterableDataset):
            dataset = SeededDataset(dataset, self.args.seed)
        return super()._get_dataloader(dataset, description, *args, is_training=is_training, **kwargs)

    def _get_train_sampler(self, train_dataset=None):
        if self.args.train_sampling == "random":
            return super()._get_train_sampler(train_dataset)
        dataset = self.train_dataset if train_dataset is None else train_dataset
        if self.args.train_sampling in SCHEDULES:
            schedule = build_schedule(self.args.train_sampling, self.args.train_sampling_options)
            return ScheduledSampler(schedule, dataset, self._images_in_all(len(dataset)), self.args.seed)
        dataset = dataset.dataset if isinstance(dataset, SeededDataset) else dataset
        return train_sampler(dataset, self.args.train_sampling, self.args.seed)

    def _images_in_all(self, epoch: int) -> float:
        """That the whole training draws, with `epoch` images in each."""
        args = self.args
        step = args.train_batch_size * args.world_size * args.gradient_accumulation_steps
        return args.max_steps * step if args.max_steps > 0 else args.num_train_epochs * epoch

    # ---- checkpoints and cards ---------------------------------------------------------------------------------------

    def _save_beside(self, folder: str) -> None:
        if self.args.should_save:
            self.learner.save_beside(folder)

    def _learned_from(self):
        return super()._learned_from() | {"meta set": self._data.meta}

    def _stateful(self) -> list:
        """What has a file of its own in a checkpoint, beside those of Trainer."""
        parts = [] if self.learner.STATE_FILE is None else [self.learner]
        return parts if self.training_images is None else [*parts, self.training_images]

    def _check_resumable(self, checkpoint):
        for part in self._stateful():
            part.check(checkpoint)

    def _save_checkpoint(self, model, trial):
        self._guard.check_weights()
        super()._save_checkpoint(model, trial)

    def _load_best_model(self):
        if found := super()._load_best_model():
            self.learner.load_beside(self.state.best_model_checkpoint)
        return found

    def _save_optimizer_and_scheduler(self, output_dir):
        super()._save_optimizer_and_scheduler(output_dir)
        for part in self._stateful():
            state = part.state_dict(gather_object)
            if self.args.should_save:
                torch.save(state, os.path.join(output_dir, part.STATE_FILE))

    def _load_optimizer_and_scheduler(self, checkpoint):
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None:
            return
        self.learner.load_beside(checkpoint)
        processes = self.args.world_size
        for part in self._stateful():
            state = torch.load(os.path.join(checkpoint, part.STATE_FILE), map_location="cpu", weights_only=True)
            part.load_state_dict(state)
            processes = len(state.get("generators", range(processes)))
        if processes != self.args.world_size:
            logger.warning(
                f"The checkpoint is of {processes} processes and goes on with {self.args.world_size}: its infills and "
                "meta crops are drawn anew."
            )

    def _card(self, details: CardDetails) -> tuple[str, dict[str, Any]]:
        facts = self.learner.facts(own_settings(self.args))
        if details.meta_source and "meta_source" in facts:
            facts["meta_source"] = details.meta_source
        return self.learner.CARD, facts


class _EpochCallback(TrainerCallback):
    """Tells the training data which epoch it is."""

    def on_epoch_begin(self, args, state, control, train_dataloader=None, **kwargs):
        # accelerate tells the data set the epoch only where the sampler does not want to know it
        if isinstance(dataset := getattr(train_dataloader, "dataset", None), SeededDataset):
            dataset.set_epoch(int(state.epoch))
