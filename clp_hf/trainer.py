"""`CLPTrainer`: Algorithm 1 of CLP as the training step of a `transformers.Trainer`."""

import copy
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import fields
from functools import partial
from typing import Any

import torch
from accelerate.utils import DynamoBackend, gather_object
from torch import Tensor, nn
from torch.utils.data import IterableDataset
from transformers import PreTrainedModel, TrainerCallback, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.utils import SAFE_WEIGHTS_NAME, logging

from .atomic_checkpoints import AtomicCheckpointTrainer
from .baselines.meta_weight_net import WeightNetwork
from .bilevel import Recording, TrainingPass, dual_attention, hypergradient, run_at, step_sizes
from .causal import CausalAugmentation, MetaSampler, Role, build_inpainter, meta_loss, prepare_masks, saliency_penalty
from .data.contract import (
    MetaSet,
    balanced_sampler,
    check_batch,
    check_training_data,
    class_proportions,
    split_meta_set,
)
from .data.seeding import SeededDataset
from .hub import CardDetails
from .loss_trainer import LossTrainer
from .modeling import (
    evaluation_layers,
    find_classifier_head,
    forward_with_features,
    head_layers,
    image_settings,
    load_image_classifier,
    parameter_count,
    uses_batch_statistics,
)
from .perturbation import (
    BACKGROUND_MARGIN,
    BackgroundProbe,
    ClassStatistics,
    MetaNetwork,
    PerturbationNetwork,
    training_characteristics,
)
from .perturbation.network import FILES
from .precision import at_least_float32
from .publishing import PublishingTrainer
from .training_args import CLPTrainingArguments

logger = logging.get_logger(__name__)

META_STATE_FILE = "meta_state.pt"
MOST_LOGGED_CLASSES = 20  # of more, a line of the log could not be read
# A short second moment: hypergradients shrink a thousandfold in the first steps, and 0.999 would stall Ω after them.
PERTURBATION_BETAS = (0.9, 0.95)

Batch = dict[str, Tensor]


class CLPTrainer(PublishingTrainer, AtomicCheckpointTrainer, LossTrainer):
    """A `Trainer` whose training step is one step of CLP (Algorithm 1); everything else is as its users know it.

    Data sets are map-style, of items with `pixel_values` (3, H, W), normalised for the model; `labels`, an integer;
    where there are any, `mask` (1, H, W) in [0, 1] with 1 on the causal foreground; `group`, an integer; and `noisy`,
    whether the label is known to be wrong, for the log alone. Training data may be a stream (an `IterableDataset`, with
    `max_steps` and a `meta_dataset`): its class proportions are then counted as the labels come. Evaluation hands
    `compute_metrics` the label ids `(labels, groups)` where the data set has groups. `label_smoothing_factor` smooths
    the training loss (and, as in `Trainer`, the loss of evaluation), not the meta loss, which asks what the classifier
    says of clean labels.

    Args:
        model: an image classifier of transformers or timm.
        args: `CLPTrainingArguments`. With `meta_every=0` this is the plain `Trainer`, by `training_loss`.
        meta_dataset: the small, clean, balanced meta set. By default `args.meta_samples` images per group (per class
            without groups) are taken out of the training set.
        **kwargs: as for `Trainer`; and `card_details`, what the model card tells and the trainer cannot know.

    Attributes:
        perturbation_network: Ω, the `WeightNetwork` with `meta_network="weight"`; None with `meta_every=0`.

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
        if isinstance(model, nn.DataParallel):
            raise ValueError(
                "CLP does not run in nn.DataParallel. Pass the module inside it, and use `accelerate launch` for one "
                "process per GPU."
            )
        if isinstance(model, nn.Module) and not hasattr(model, "config"):
            model = load_image_classifier(model)
        super().__init__(model, args or CLPTrainingArguments(), **kwargs)
        if self.args.train_sampling != "random" and isinstance(self.train_dataset, IterableDataset):
            raise ValueError(
                f"train_sampling is {self.args.train_sampling!r}, but {type(self.train_dataset).__name__} is a stream, "
                "whose order is its own. Set train_sampling='random', or pass map-style training data."
            )
        self.perturbation_network: MetaNetwork | None = None
        self.add_callback(_StepCallback(self))
        self._before_overflow: tuple[float, tuple[dict, dict]] | None = None
        self._sums: dict[str, Tensor] = defaultdict(float)
        self._weights: dict[str, float] = defaultdict(float)
        if not self.args.meta_every:
            return
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            raise ValueError(
                f"CLP does not run under {'FSDP' if self.is_fsdp_enabled else 'DeepSpeed'}: its look-ahead needs whole "
                "parameters and optimizer states in every process. Use accelerate_configs/multi_gpu.yaml (DDP), with "
                "gradient_checkpointing or recompute_training_forward where memory is short. With meta_every=0 "
                "there is no look-ahead, and this is the plain Trainer."
            )
        if self.args.n_gpu > 1:
            raise ValueError(
                f"CLP does not run in nn.DataParallel, and {self.args.n_gpu} GPUs are visible to one process. Use "
                "`accelerate launch` for one process per GPU, or CUDA_VISIBLE_DEVICES for a single GPU."
            )
        self._refuse_compilation()
        with self._own_random_stream():
            self._set_up_data(meta_dataset)
            self._set_up_meta_set()
            self._set_up_perturbation()

    # ---- before training ---------------------------------------------------------------------------------------------

    @contextmanager
    def _own_random_stream(self) -> Iterator[None]:
        """Looking at the data and building Ω must not change the run's random stream."""
        with torch.random.fork_rng():
            torch.manual_seed(self.args.seed)
            yield

    def _refuse_compilation(self) -> None:
        compiled = self.accelerator.state.dynamo_plugin.backend != DynamoBackend.NO or any(
            hasattr(module, "_orig_mod") or module._compiled_call_impl is not None for module in self.model.modules()
        )
        if compiled:
            raise ValueError(
                "torch.compile does not speed CLP up: recording the training pass and running it again with dual "
                "numbers make it compile until its recompilation limit, and then run uncompiled. Set "
                "torch_compile=False (`accelerate launch --dynamo_backend no`), or pass the model that is not compiled."
            )

    def _set_up_data(self, meta_dataset) -> None:
        """Check the training set; without a meta set, take one out of it."""
        args = self.args
        num_labels = self.model.config.num_labels
        self._example = check_training_data(self.train_dataset, num_labels)
        self.meta_source = "given apart from the training set"
        if meta_dataset is None:
            self.meta_source = "taken out of the training set, as many of every group or class"
            self.train_dataset, meta_dataset = split_meta_set(self.train_dataset, args.meta_samples, args.seed)
        self._class_proportions = class_proportions(self.train_dataset, num_labels)
        self._meta_dataset = meta_dataset

    def _set_up_meta_set(self) -> None:
        """The meta batches and their augmentation, checked against the data and the model."""
        args = self.args
        needs_masks = bool(args.counterfactual_infills or args.factual_infills)
        self.meta_set = MetaSet(
            self._meta_dataset, self.data_collator, self.model.config.num_labels, needs_masks, args.mask_shape
        )
        self.meta_batch_size = args.meta_batch_size or args.per_device_train_batch_size
        if uses_batch_statistics(self.model):
            known = not (args.dataloader_drop_last or isinstance(self.train_dataset, IterableDataset))
            last = len(self.train_dataset) % args.train_batch_size if known else 0
            for name, size in (
                ("per_device_train_batch_size", args.per_device_train_batch_size),
                ("meta_batch_size", self.meta_batch_size if args.meta_in_training_mode else None),
                ("the last batch of an epoch (set dataloader_drop_last=True)", last),
            ):
                if size == 1:
                    raise ValueError(
                        f"Batch normalisation needs two images or more, but {name} is 1. Use larger batches, or "
                        "clp_hf.modeling.freeze_batch_norm_statistics(model)."
                    )
        if args.class_prior and isinstance(self.train_dataset, IterableDataset):
            raise ValueError(
                f"class_prior needs the class frequencies, and {type(self.train_dataset).__name__} is a stream. Set "
                "class_prior=False, or pass map-style training data."
            )
        if args.background_evidence and "mask" not in self._example:
            raise ValueError(
                "background_evidence needs a `mask` for every training image, and they have none. Give the data set a "
                "mask or box column (--mask_column, --box_column), or set background_evidence=False."
            )
        if args.saliency_weight and "mask" not in self._example and not self.meta_set.has_masks:
            raise ValueError(
                "saliency_weight is set, but neither the training nor the meta set has a `mask` column. Add masks or "
                "set saliency_weight=0."
            )
        normalisation = ((0.0,) * 3, (1.0,) * 3)
        if needs_masks:
            settings = image_settings(self.model, self.processing_class)
            normalisation = (settings.mean, settings.std)
        self.augmentation = CausalAugmentation(
            args.counterfactual_infills,
            args.factual_infills,
            *normalisation,
            mask_shape=args.mask_shape,
            factual_mask_shape=args.factual_mask_shape,
            fgsm_epsilon=args.fgsm_epsilon,
            inpainter=build_inpainter(args.inpainting_model) if "inpaint" in args.counterfactual_infills else None,
        )

    def _set_up_perturbation(self) -> None:
        """Find the head, and build Ω and what is updated with it."""
        args = self.args
        name, self.head = find_classifier_head(self.model, self._example["pixel_values"][None].to(args.device))
        if args.lookahead_scope == "head" and not any(weight.requires_grad for weight in self.head.parameters()):
            raise ValueError(
                f"lookahead_scope is 'head', but the head, {name}, is frozen. Train it (with PEFT: name it in "
                "modules_to_save), or let the full network look ahead."
            )
        precision = {"device": args.device, "dtype": torch.promote_types(self.head.weight.dtype, torch.float32)}
        self.perturbation_network = self._build_meta_network().to(**precision)
        self.characteristics = self.perturbation_network.characteristics
        self.class_statistics = ClassStatistics(
            self._class_proportions, counted=isinstance(self.train_dataset, IterableDataset)
        ).to(**precision)
        self.background_probe = BackgroundProbe(self.head.in_features, self.head.out_features).to(**precision)
        self.meta_sampler = MetaSampler(
            len(self.meta_set),
            self.meta_batch_size * args.world_size,
            self.augmentation.roles,
            self.meta_set.maskable,
            args.seed,
            copies=args.augmented_copies,
        )
        self._meta_batches = iter(self.meta_sampler)
        self.meta_generator = torch.Generator().manual_seed(args.seed + args.process_index)

    def _build_meta_network(self) -> MetaNetwork:
        args = self.args
        if args.meta_network == "weight":
            return WeightNetwork(hidden_size=args.perturbation_hidden_size)
        return PerturbationNetwork(
            self.head.out_features,
            characteristics=[*args.characteristics, *([BACKGROUND_MARGIN] if args.background_evidence else [])],
            hidden_size=args.perturbation_hidden_size,
            bound=args.perturbation_bound,
            condition_on_label=args.condition_on_label,
            class_proportions=self._class_proportions.tolist() if args.class_prior else None,
            perturbed_logits=args.perturbed_logits,
        )

    def _prepare_for_training(self, max_steps, train_dataloader, resume_from_checkpoint):
        if self.args.meta_every:
            if self.perturbation_network is None:
                raise ValueError(
                    f"meta_every is {self.args.meta_every} now, but was 0 when the trainer was built, which has no "
                    "meta set therefore. Build it with meta_every above 0."
                )
            if not any(module is head_layers(self.head)[0] for module in self.model.modules()):
                # `model_init` has made another model, and a hyper-parameter search may have changed the arguments.
                with self._own_random_stream():
                    self._set_up_meta_set()
                    self._set_up_perturbation()
            # Not prepared by accelerate: its optimizer wrapper would skip steps between synchronised micro-batches.
            self.perturbation_optimizer = torch.optim.AdamW(
                self.perturbation_network.parameters(),
                lr=self.args.perturbation_learning_rate,
                betas=PERTURBATION_BETAS,
                weight_decay=self.args.perturbation_weight_decay,
            )
        return super()._prepare_for_training(max_steps, train_dataloader, resume_from_checkpoint)

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

    # ---- Algorithm 1 -------------------------------------------------------------------------------------------------

    def training_step(self, model, inputs, num_items_in_batch=None) -> Tensor:
        """One step of Algorithm 1: look ahead, update Ω, then leave W's gradient for the optimizer."""
        deferred = self.state.global_step < self.args.perturbation_start * self.state.max_steps
        if deferred or not self.args.meta_every:
            return super().training_step(model, inputs, num_items_in_batch)
        model.train()
        if callable(getattr(self.optimizer, "train", None)):
            self.optimizer.train()
        batch = self._prepare_inputs(inputs)
        pixel_values, labels = batch["pixel_values"], batch["labels"]
        check_batch(batch, self.model.config.num_labels, self.state.global_step)
        # With accumulation the last micro-batch stands for all of them.
        meta_due = self.accelerator.sync_gradients and self.state.global_step % self.args.meta_every == 0
        recompute = meta_due and self.args.recompute_training_forward
        module = self.accelerator.unwrap_model(model)
        recording = Recording(pixel_values.device)
        with self.compute_loss_context_manager():
            with recording, dual_attention() if self.args.hypergradient == "double_backward" else nullcontext():
                logits, features = self._forward(module if recompute else model, batch)
            background_logits = self._background_logits(module, batch) if self.args.background_evidence else None
            characteristics = training_characteristics(
                logits,
                features,
                labels,
                self.head.weight,
                self.class_statistics,
                self.characteristics,
                background_logits=background_logits,
            )
            self.perturbation_network.update_statistics(characteristics)
            self.perturbation_network.remember(characteristics, labels)
            perturb = partial(self.perturbation_network, characteristics, labels, background_logits)
            penalty = self._saliency(module, batch)
            if meta_due:
                if self.args.lookahead_scope == "head":
                    looking, replay = self.head, partial(self._head_logits, features.detach())
                    training_pass = TrainingPass(replay, replay(), recording, penalty)
                else:
                    looking, replay = module, lambda: self._forward(module, batch)[0]
                    training_pass = TrainingPass(replay, logits, recording, penalty)
                updated = self._update_perturbation_network(module, looking, training_pass, perturb, batch)
            if recompute:
                with recording.random_state.replayed():  # without moving the batch-norm statistics once more
                    logits, _ = run_at(module, {}, lambda: self._forward(model, batch))
                penalty = self._saliency(module, batch)
            with torch.no_grad():
                perturbation = perturb()
            loss = self._inner_loss(logits, perturbation, labels)
            loss = loss if penalty is None else loss + penalty
        self._record_perturbation(logits.detach(), perturbation, batch)
        loss = loss / self.current_gradient_accumulation_steps
        # An overflow in Ω's gradient must lower the scale and skip the step of W too.
        overflow = meta_due and not updated and self.accelerator.scaler is not None
        self.accelerator.backward(loss * torch.inf if overflow else loss)
        return loss.detach()

    def _update_perturbation_network(
        self,
        module: nn.Module,
        looking: nn.Module,
        training_pass: TrainingPass,
        perturb: Callable[[], Tensor],
        batch: Batch,
    ) -> bool:
        """Steps 2 and 3: Ω by its hypergradient.

        Args:
            module: the classifier.
            looking: what looks ahead, all of `module` or its head.
            training_pass: the training batch through `looking`.
            perturb: computes δ of the training batch from Ω.
            batch: the training batch, from which backgrounds are borrowed.

        Returns:
            Whether Ω was updated: not by what is not finite.
        """
        scaler = self.accelerator.scaler
        args, labels, network = self.args, batch["labels"], self.perturbation_network
        meta_batch = self._next_meta_batch(module, batch)
        result = hypergradient(
            looking,
            training_pass,
            lambda logits: self._inner_loss(logits, perturb(), labels),
            lambda: self._meta_loss(module, meta_batch),
            list(network.parameters()),
            lambda gradients: step_sizes(
                self.optimizer,
                {name: parameter for name, parameter in looking.named_parameters() if name in gradients},
                gradients,
                args.lookahead,
                args.max_grad_norm,
            ),
            engine=args.hypergradient,
            keep_graph=not args.recompute_training_forward,
            loss_scale=1.0 if scaler is None else scaler.get_scale(),
        )
        norm = torch.nn.utils.get_total_norm
        total = norm(result.total)
        # A non-finite step would poison Ω, and through it the classifier, for good.
        skip = not torch.isfinite(result.outer_loss + total)
        self._record("meta_updates_skipped", torch.tensor(float(skip)))
        if skip:
            return False
        if scaler is not None:
            self._before_overflow = scaler.get_scale(), copy.deepcopy(self._trained_state())
        for parameter, gradient in zip(network.parameters(), result.total, strict=True):
            parameter.grad = gradient
        if args.perturbation_follows_schedule:
            base, current = self.optimizer.param_groups[0]["initial_lr"], self.optimizer.param_groups[0]["lr"]
            self.perturbation_optimizer.param_groups[0]["lr"] = args.perturbation_learning_rate * current / base
        self.perturbation_optimizer.step()
        self.perturbation_optimizer.zero_grad()
        self._record("meta_loss", result.outer_loss)
        self._record("hypergradient_direct", norm(result.direct))
        self._record("hypergradient_indirect", norm(result.indirect))
        if result.logit_tangent is not None and "group" in batch:
            derivative = self._derivative_in_output(training_pass.logits, perturb(), labels, result.logit_tangent)
            self._record_each("signal_group", network.signal(derivative, labels), batch["group"])
        return True

    def _trained_state(self) -> tuple[dict, dict]:
        return self.perturbation_network.state_dict(), self.perturbation_optimizer.state_dict()

    def undo_after_overflow(self) -> None:
        """Take the last update of Ω back where the scaler has skipped that of W: both see an overflow, or none does."""
        if self._before_overflow is None:
            return
        scale, (network, optimizer) = self._before_overflow
        # The scale tells; accelerate's `optimizer_step_was_skipped` does not know of fused optimizers.
        if self.accelerator.scaler.get_scale() < scale:
            self.perturbation_network.load_state_dict(network)
            self.perturbation_optimizer.load_state_dict(optimizer)
        self._before_overflow = None

    def _derivative_in_output(self, logits: Tensor, output: Tensor, labels: Tensor, tangent: Tensor) -> Tensor:
        """n times that of the meta loss in the output of Ω, through the look-ahead."""
        logits, output = logits.detach().requires_grad_(), output.detach().requires_grad_()
        (q,) = torch.autograd.grad(self._inner_loss(logits, output, labels), logits, create_graph=True)
        return -len(labels) * torch.autograd.grad((tangent.to(q.dtype) * q).sum(), output)[0]

    def _next_meta_batch(self, module: nn.Module, batch: Batch) -> Batch:
        """Draw meta images in their roles, augmented; everything random comes from `meta_generator`."""
        rows = next(self._meta_batches)[self.args.process_index :: self.args.world_size]
        with torch.random.fork_rng():
            torch.manual_seed(int(torch.randint(2**62, (), generator=self.meta_generator)))
            meta_batch = self._prepare_inputs(self.meta_set.fetch([index for index, _ in rows]))
        role = torch.tensor([role for _, role in rows], device=meta_batch["labels"].device)
        mask = meta_batch.get("mask")
        if mask is not None:
            role = self.augmentation.effective_role(role, mask)
        meta_batch["counterfactual"] = role == Role.COUNTERFACTUAL
        meta_batch["pixel_values"] = self.augmentation(
            meta_batch["pixel_values"],
            meta_batch["labels"],
            mask,
            role,
            generator=self.meta_generator,
            logits_fn=partial(self._logits, module),
            donors=batch if "mask" in batch else None,
        )
        return meta_batch

    def _meta_loss(self, module: nn.Module, batch: Batch) -> Tensor:
        """The meta loss at the parameters that `module` holds now (Eq. 9).

        It asks for the classifier as it will be used: no dropout, and batch normalisation by its running statistics.
        Those of the meta batch, where classes or groups are balanced as they are not in training, would put every image
        elsewhere among the features, and Ω would correct for that.
        """
        mode = nullcontext() if self.args.meta_in_training_mode else evaluation_layers(module)
        with self.compute_loss_context_manager(), mode:
            if self.args.lookahead_scope == "head":
                # Below the head nothing looks ahead: no graph, and no move of batch-norm statistics.
                with torch.no_grad():
                    _, features = self._forward_unrecorded(module, batch)
                logits = self._head_logits(features)
            else:
                logits, features = self._forward(module, batch)
            if self.args.perturb_meta_logits:
                characteristics = training_characteristics(
                    logits,
                    features,
                    batch["labels"],
                    self.head.weight,
                    self.class_statistics,
                    self.characteristics,
                    update=False,
                )
                logits = logits + self.perturbation_network(characteristics, batch["labels"])
            loss = meta_loss(logits, batch["labels"], batch["counterfactual"])
            penalty = self._saliency(module, batch)
            return loss if penalty is None else loss + penalty

    def _background_logits(self, module: nn.Module, batch: Batch) -> Tensor:
        """u_z of a training batch: the probe on its counterfactual images; 0 for images that cannot be masked."""
        role = torch.full_like(batch["labels"], Role.COUNTERFACTUAL)
        role = self.augmentation.effective_role(role, batch["mask"])
        pixel_values = self.augmentation(
            batch["pixel_values"], batch["labels"], batch["mask"], role, generator=self.meta_generator
        )
        with torch.no_grad():
            _, features = self._forward_unrecorded(module, {"pixel_values": pixel_values})
        logits = self.background_probe(features, batch["labels"])
        return logits * (role == Role.COUNTERFACTUAL)[:, None]

    def _forward(self, module: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        return forward_with_features(module, self.head, batch["pixel_values"])

    def _head_logits(self, features: Tensor) -> Tensor:
        with self.accelerator.autocast():  # which accelerate puts around the whole model only
            return self.head(features)

    def _forward_unrecorded(self, module: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """The same at the parameters that `module` holds now, moving none of its buffers (batch-norm statistics)."""
        return run_at(module, {}, lambda: self._forward(module, batch))

    def _logits(self, module: nn.Module, pixel_values: Tensor) -> Tensor:
        return self._forward_unrecorded(module, {"pixel_values": pixel_values})[0]

    def _inner_loss(self, logits: Tensor, perturbation: Tensor, labels: Tensor) -> Tensor:
        return self.perturbation_network.training_loss(logits, perturbation, labels, self.args.label_smoothing_factor)

    def _saliency(self, module: nn.Module, batch: Batch) -> Tensor | None:
        """λ times Eq. 6 on the first `saliency_batch_size` images; None when it is off or there are no masks."""
        if not self.args.saliency_weight or "mask" not in batch:
            return None
        rows = slice(self.args.saliency_batch_size)
        penalty = saliency_penalty(
            partial(self._logits, module),
            batch["pixel_values"][rows],
            batch["labels"][rows],
            prepare_masks(batch["mask"][rows], self.args.mask_shape),
        )
        return self.args.saliency_weight * penalty

    # ---- what is logged ----------------------------------------------------------------------------------------------

    def _record(self, name: str, value: Tensor, weight: float = 1.0) -> None:
        self._sums[name] += value.detach()
        self._weights[name] += weight

    def _record_each(self, name: str, values: Tensor, cells: Tensor) -> None:
        present, place, sizes = cells.unique(return_inverse=True, return_counts=True)
        values = at_least_float32(values)
        totals = values.new_zeros(len(present)).index_add_(0, place, values)
        for cell, total, size in zip(present.tolist(), totals, sizes.tolist(), strict=True):
            self._record(f"{name}_{cell}", total, size)

    def _record_perturbation(self, logits: Tensor, perturbation: Tensor, batch: Batch) -> None:
        network, labels = self.perturbation_network, batch["labels"]
        self._record(f"{network.NAME}_size", perturbation.abs().mean())
        level, raised = network.level(perturbation, labels), network.raises_loss(logits, perturbation, labels)
        cells = {"group": batch["group"]} if "group" in batch else {}
        if self.model.config.num_labels <= MOST_LOGGED_CLASSES:
            cells["class"] = labels
        for kind, members in cells.items():
            self._record_each(f"{network.NAME}_{kind}", level, members)
            self._record_each(f"loss_raised_{kind}", raised, members)
        if "noisy" in batch:
            noisy = batch["noisy"].bool()
            for name, members in (("clean", ~noisy), ("noisy", noisy)):
                if members.any():
                    self._record(f"loss_raised_{name}", raised[members].sum(), int(members.sum()))

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the means since the last log, over all processes, of what CLP recorded.

        `meta_loss`; `perturbation_size`, the mean |δ|; `hypergradient_direct` and `hypergradient_indirect`, norms;
        `meta_updates_skipped`, the share of updates with a non-finite meta loss; for each class, where there are 20 at
        most, `perturbation_class_<c>`, δ of the own class over the mean of the others, and `loss_raised_class_<c>`, the
        share of samples whose loss δ raises; where groups are known, `perturbation_group_<g>` and
        `loss_raised_group_<g>`, the same of each group, and `signal_group_<g>`, the derivative of the meta loss in the
        own-class δ of a sample: positive where the sample should keep its weight. Where items say whether they are
        `noisy`, `loss_raised_clean` and `loss_raised_noisy` (CLP, Figure 5).
        With `meta_network="weight"` they are `weight_size`, `weight_class_<c>` and `weight_group_<g>`, means of the
        sample weights.
        """
        if "loss" in logs:
            sums, weights = Counter(), Counter()
            for process in gather_object(
                [[(name, float(self._sums[name]), self._weights[name]) for name in self._sums]]
            ):
                for name, value, weight in process:
                    sums[name] += value
                    weights[name] += weight
            logs |= {name: sums[name] / weights[name] for name in sorted(sums)}
            self._sums.clear()
            self._weights.clear()
        super().log(logs, start_time)

    # ---- columns and order -------------------------------------------------------------------------------------------

    def _get_dataloader(self, dataset, description, *args, is_training=False, **kwargs):
        if is_training and self.args.meta_every and not isinstance(dataset, IterableDataset):
            dataset = SeededDataset(dataset, self.args.seed)
        return super()._get_dataloader(dataset, description, *args, is_training=is_training, **kwargs)

    def _get_train_sampler(self, train_dataset=None):
        if self.args.train_sampling == "random":
            return super()._get_train_sampler(train_dataset)
        dataset = self.train_dataset if train_dataset is None else train_dataset
        dataset = dataset.dataset if isinstance(dataset, SeededDataset) else dataset
        return balanced_sampler(dataset, {"class": "labels", "group": "group"}[self.args.train_sampling])

    # ---- checkpoints -------------------------------------------------------------------------------------------------

    def _save_beside(self, folder: str) -> None:
        if self.perturbation_network is not None and self.args.should_save:
            self.perturbation_network.save_pretrained(os.path.join(folder, self.perturbation_network.FOLDER))

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        self._check_checkpoint(resume_from_checkpoint)
        if not self._load_pretrained_weights(resume_from_checkpoint):
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_best_model(self):
        checkpoint = self.state.best_model_checkpoint
        if not self._load_pretrained_weights(checkpoint):
            super()._load_best_model()
        self._load_perturbation_network(checkpoint)

    def _load_perturbation_network(self, checkpoint: str) -> None:
        if self.perturbation_network is not None:
            network = type(self.perturbation_network).from_pretrained(checkpoint).to(self.args.device)
            self.perturbation_network.load_state_dict(network.state_dict())
            self.perturbation_network.recent = network.recent

    def _check_checkpoint(self, folder: str) -> None:
        """Refuse to go on from what is not a whole checkpoint of such a run: it would train something else."""
        if self.perturbation_network is None:
            return
        network = self.perturbation_network
        needed = [TRAINER_STATE_NAME, META_STATE_FILE, *(os.path.join(network.FOLDER, name) for name in FILES)]
        missing = [name for name in needed if not os.path.isfile(os.path.join(folder, name))]
        if missing:
            raise ValueError(
                f"{folder} is not a complete checkpoint of a CLP run: {', '.join(missing)} is missing. Either the "
                "writing of it was cut off, or it was saved with save_only_model=True or meta_every=0. Resume from "
                "another checkpoint, or start anew without resume_from_checkpoint."
            )
        found, expected = type(network).from_pretrained(folder).config, network.config
        if found != expected:
            raise ValueError(
                f"The perturbation network in {folder} was trained with {found}, this run is set to {expected}. Resume "
                "with the settings of the run that wrote the checkpoint."
            )

    def _load_pretrained_weights(self, checkpoint: str) -> bool:
        """Load a checkpoint as `from_pretrained` does; False for models that are not saved that way.

        `Trainer` loads the file's keys as they are, but `save_pretrained` writes them under the names of the original
        release (ViT in transformers 5): a resumed run would silently start from its initial weights.
        """
        whole = isinstance(self.model, PreTrainedModel) and not (self.is_fsdp_enabled or self.is_deepspeed_enabled)
        if not whole or not os.path.isfile(os.path.join(checkpoint, SAFE_WEIGHTS_NAME)):
            return False
        self.model.load_state_dict(type(self.model).from_pretrained(checkpoint).state_dict())
        return True

    def _save_optimizer_and_scheduler(self, output_dir):
        super()._save_optimizer_and_scheduler(output_dir)
        if self.perturbation_network is None:
            return
        generators = gather_object([self.meta_generator.get_state()])  # of every process
        if self.args.should_save:
            torch.save(
                {name: part.state_dict() for name, part in self._meta_state().items()} | {"generators": generators},
                os.path.join(output_dir, META_STATE_FILE),
            )

    def _load_optimizer_and_scheduler(self, checkpoint):
        super()._load_optimizer_and_scheduler(checkpoint)
        if self.perturbation_network is not None and checkpoint is not None:
            state = torch.load(os.path.join(checkpoint, META_STATE_FILE), map_location="cpu", weights_only=True)
            self._load_perturbation_network(checkpoint)
            for name, part in self._meta_state().items():
                part.load_state_dict(state[name])
            if len(state["generators"]) == self.args.world_size:
                self.meta_generator.set_state(state["generators"][self.args.process_index])
            else:
                logger.warning(
                    f"The checkpoint is of {len(state['generators'])} processes and goes on with "
                    f"{self.args.world_size}: its infills and meta crops are drawn anew."
                )

    def _meta_state(self) -> dict[str, Any]:
        return {
            "optimizer": self.perturbation_optimizer,
            "class_statistics": self.class_statistics,
            "background_probe": self.background_probe,
            "sampler": self.meta_sampler,
        }

    # ---- publishing --------------------------------------------------------------------------------------------------

    def _card(self, details: CardDetails) -> tuple[str, dict[str, Any]]:
        if self.perturbation_network is not None:
            return {"perturbation": "clp", "weight": "meta-weight-net"}[self.args.meta_network], self._facts(details)
        return "plain-trainer", {
            "train_sampling": self.args.train_sampling,
            "training_loss": self.args.training_loss,
            "loss_options": self.args.training_loss_options,
        }

    def _facts(self, details: CardDetails) -> dict[str, Any]:
        args = self.args
        names = [field.name for field in fields(args) if field.name not in TrainingArguments.__dataclass_fields__]
        return {
            "method_settings": {name: getattr(args, name) for name in names},
            "meta_size": len(self.meta_set),
            "meta_unmaskable": int((~self.meta_set.maskable).sum()),
            "meta_source": details.meta_source or self.meta_source,
            "infills": {"counterfactual": args.counterfactual_infills, "factual": args.factual_infills},
            "network_parameters": parameter_count(self.perturbation_network),
        }


class _StepCallback(TrainerCallback):
    """What is due between the steps."""

    def __init__(self, trainer: CLPTrainer):
        self.trainer = trainer

    def on_optimizer_step(self, args, state, control, **kwargs):
        self.trainer.undo_after_overflow()

    def on_epoch_begin(self, args, state, control, train_dataloader=None, **kwargs):
        # accelerate tells the data set the epoch only where the sampler does not want to know it
        if isinstance(dataset := getattr(train_dataloader, "dataset", None), SeededDataset):
            dataset.set_epoch(int(state.epoch))
