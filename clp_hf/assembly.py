"""What a `CLPTrainer` learns by, put together from its arguments, its model and its data, which are checked for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from math import ceil
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, IterableDataset

from .algorithm import MetaLearner
from .base.requirements import refuse_streams
from .bilevel import SCOPES, Classifier, ConvergedHead
from .causal import CausalAugmentation, MetaBatches, MetaSampler, TrainingImages, build_inpainter
from .data.checks import check_labels, check_training_data, column, stored_column
from .data.frequencies import class_proportions
from .data.mask_counts import check_training_masks
from .data.meta_set import MetaSet, split_meta_set
from .losses import build_loss, is_pair, needs_groups, needs_head
from .losses.objective import LossObjective, Objective
from .losses.two_networks.objective import TwoNetworkObjective
from .modeling.head import find_classifier_head, forward_with_features
from .modeling.modes import uses_batch_statistics
from .modeling.preprocessing import image_settings
from .perturbation import META_NETWORKS, ClassStatistics, Evidences, Sources
from .training_args import CLPTrainingArguments

HEAD_LOOKS_AHEAD = {"lookahead_scope": "head", "lookahead": "converged"}
LEAST_OF_A_CLASS = 2


@dataclass
class Data:
    """The data of a trainer.

    Attributes:
        train: the training set; without a meta set, one is taken out of it.
        meta: the meta set; None for methods that learn nothing from one.
        collator: makes batches of items.
        processor: the preprocessing that its images went through.
        meta_source: where the meta set is from, in words.
        example: the first item of the training set.
        proportions: (C,), the share of every class in the training set.
    """

    train: Dataset | None
    meta: Dataset | None
    collator: Callable
    processor: Any = None
    meta_source: str = "given apart from the training set"
    example: dict[str, Any] = field(default_factory=dict)
    proportions: Tensor | None = None

    def prepare_for_meta_learning(self, args: CLPTrainingArguments, num_labels: int) -> None:
        """Check the training set, and see to it that there is a meta set.

        Raises:
            ValueError: as `check_training_data` and `split_meta_set`.
        """
        self.example = check_training_data(self.train, num_labels)
        if self.meta is None:
            self.meta_source = "taken out of the training set, as many of every group or class"
            self.train, self.meta = split_meta_set(self.train, args.meta_samples, args.seed)
        self.proportions = class_proportions(self.train, num_labels)

    def check_train_infills(self, args: CLPTrainingArguments, num_labels: int) -> None:
        """Check that there are training images that can be put before another background.

        Raises:
            ValueError: as `check_training_masks`, or there is one class only.
        """
        if not isinstance(self.train, IterableDataset):
            check_labels(column(self.train, "labels"), num_labels, "training set")
        with own_random_stream(args.seed):
            check_training_masks(self.train, args.factual_mask_shape or args.mask_shape)


def build_objective(
    args: CLPTrainingArguments,
    model: nn.Module,
    data: Data,
    prepare: Callable[[dict], dict],
    autocast: Callable[[], AbstractContextManager] = nullcontext,
) -> Objective:
    """The one place that asks which method the arguments are.

    Args:
        args: checked.
        model: on the run's device.
        data: prepared for meta-learning where `args.meta_every` is above 0.
        prepare: brings a batch to the run's device.
        autocast: what surrounds a call of the head alone.

    Raises:
        ValueError: data or model do not allow the method; the message names the fix.
    """
    if args.meta_every:
        with own_random_stream(args.seed):
            return _meta_learner(args, model, data, prepare, autocast)
    if args.training_loss != "cross_entropy":
        return _loss_objective(args, model, data.train, autocast)
    return Objective()


def build_training_images(args: CLPTrainingArguments, model: nn.Module, data: Data) -> TrainingImages | None:
    """What `args.train_infills` asks for; None where they are empty.

    Args:
        args: checked.
        model, data: tell how images are normalised.
    """
    if not args.train_infills:
        return None
    return TrainingImages(
        _augmentation(args, model, data.processor, data.train, [], args.train_infills),
        args.train_infill_share,
        torch.Generator().manual_seed(args.seed + args.process_index),
        args.process_index,
        args.world_size,
    )


@contextmanager
def own_random_stream(seed: int) -> Iterator[None]:
    """Looking at the data and building Ω must not change the run's random stream."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def _loss_objective(args: CLPTrainingArguments, model: nn.Module, train: Dataset, autocast: Callable) -> LossObjective:
    name = args.training_loss
    if not hasattr(train, "__len__"):
        raise ValueError(f"training_loss={name!r} needs a train_dataset with a length, for its class frequencies.")
    num_labels = model.config.num_labels
    labels = check_labels(column(train, "labels"), num_labels, "training set")
    groups = column(train, "group") if needs_groups(name) else None
    noisy = stored_column(train, "noisy")
    head = None
    if needs_head(name) or is_pair(name):
        _, head = find_classifier_head(model, train[0]["pixel_values"][None])
    loss = build_loss(
        name,
        torch.as_tensor(labels),
        num_labels,
        None if groups is None else torch.as_tensor(groups),
        args.training_loss_options,
        None if head is None else head.in_features,
        getattr(train, "corruption", None),
        None if noisy is None else float(np.mean(noisy)),
    ).to(args.device)
    if is_pair(name):
        return TwoNetworkObjective(name, loss, model, head, args.seed + 1, args.max_grad_norm, autocast)
    return LossObjective(name, loss, head)


def _meta_learner(
    args: CLPTrainingArguments, model: nn.Module, data: Data, prepare: Callable, autocast: Callable
) -> MetaLearner:
    meta_set = MetaSet(data.meta, data.collator, model.config.num_labels, args.needs_masks, args.mask_shape)
    meta_batch_size = args.meta_batch_size or args.per_device_train_batch_size
    _check_batch_norm(args, model, data.train, meta_batch_size)
    _check_settings(args, data, meta_set)
    name, head = find_classifier_head(model, data.example["pixel_values"][None])
    asked = [f"{field} is {value!r}" for field, value in HEAD_LOOKS_AHEAD.items() if getattr(args, field) == value]
    if asked and not any(weight.requires_grad for weight in head.parameters()):
        raise ValueError(
            f"{asked[0]}, but the head, {name}, is frozen. Train it (with PEFT: name it in modules_to_save), or let "
            "the full network look ahead."
        )
    precision = {"device": args.device, "dtype": torch.promote_types(head.weight.dtype, torch.float32)}
    counted = isinstance(data.train, IterableDataset)
    counts = torch.ones(head.out_features) if counted else (data.proportions * len(data.train)).round()
    network = META_NETWORKS[args.meta_network].of(
        args, head.out_features, data.proportions, class_counts=counts, num_features=head.in_features
    )
    network = network.to(**precision)
    statistics = ClassStatistics(data.proportions, counted=counted).to(**precision)
    infills = args.counterfactual_infills, args.factual_infills
    augmentation = _augmentation(args, model, data.processor, data.meta, *infills)
    generator = torch.Generator().manual_seed(args.seed + args.process_index)
    sampler = MetaSampler(
        len(meta_set),
        meta_batch_size * args.world_size,
        augmentation.roles,
        meta_set.maskable,
        args.seed,
        copies=args.augmented_copies,
    )
    meta_batches = MetaBatches(meta_set, prepare, sampler, augmentation, generator, args.process_index, args.world_size)
    classifier = Classifier(model, head, forward_with_features, autocast)
    initial = classifier.frozen() if args.evidence and args.evidence_network == "initial" else None
    return MetaLearner(
        classifier,
        network,
        statistics,
        Evidences.of(args.evidence, _evidence_sources(data, head, meta_batches), initial).to(**precision),
        meta_batches,
        SCOPES[args.lookahead_scope],
        args,
        {
            "meta_size": len(meta_set),
            "meta_unmaskable": int((~meta_set.maskable).sum()),
            "meta_source": data.meta_source,
            "infills": {"counterfactual": args.counterfactual_infills, "factual": args.factual_infills},
        },
        _converged_head(args, data, head.out_features) if args.lookahead == "converged" else None,
    )


def _evidence_sources(data: Data, head: nn.Module, meta_batches: MetaBatches) -> Sources:
    labels, groups = (column(data.meta, name) for name in ("labels", "group"))
    pairs = [stored_column(data.train, name) for name in ("labels", "group")]
    return Sources(
        head.in_features,
        head.out_features,
        training_masks="mask" in data.example,
        augmentation=meta_batches.augmentation,
        meta_labels=torch.as_tensor(labels),
        meta_groups=None if groups is None else torch.as_tensor(groups),
        training_pairs=None if any(part is None for part in pairs) else tuple(map(torch.as_tensor, pairs)),
        meta_images=lambda indices: meta_batches.images(indices)["pixel_values"],
        generator=meta_batches.generator,
    )


def _converged_head(args: CLPTrainingArguments, data: Data, num_labels: int) -> ConvergedHead:
    """With a memory of `args.lookahead_memory` images, or of this process's part of an epoch where that is less.

    Raises:
        ValueError: two images of every class are not to be expected in it.
    """
    size = args.lookahead_memory
    if not isinstance(data.train, IterableDataset):
        size = min(size, ceil(len(data.train) / args.world_size))
    balanced = args.train_sampling in ("class", "group")
    shares = torch.full((num_labels,), 1 / num_labels) if balanced else data.proportions
    share, rarest = (value.item() for value in shares.min(0))
    if size * share < LEAST_OF_A_CLASS:
        needed = ceil(LEAST_OF_A_CLASS / share)
        enough = isinstance(data.train, IterableDataset) or needed * args.world_size <= len(data.train)
        raise ValueError(
            f"lookahead='converged' needs {LEAST_OF_A_CLASS} images of every class in its memory. Of {size} images a "
            f"process, {size * share:.1f} are of class {rarest}, with {share:.2%} of the training images. "
            + (
                f"Set lookahead_memory to {needed} or more, "
                if enough
                else "There are too few of them for any lookahead_memory: add images, "
            )
            + "or lookahead='match'."
        )
    return ConvergedHead(size, num_labels, args.lookahead_ridge)


def _augmentation(
    args: CLPTrainingArguments,
    model: nn.Module,
    processor: Any,
    images: Dataset,
    counterfactual: Sequence[str],
    factual: Sequence[str],
) -> CausalAugmentation:
    """That of the data set, where it has one of its own; else one of images."""
    if (own := getattr(images, "causal_augmentation", None)) is not None:
        return own
    normalisation = ((0.0,) * 3, (1.0,) * 3)
    if counterfactual or factual:
        settings = image_settings(model, processor)
        normalisation = (settings.mean, settings.std)
    return CausalAugmentation(
        counterfactual,
        factual,
        *normalisation,
        mask_shape=args.mask_shape,
        factual_mask_shape=args.factual_mask_shape,
        fgsm_epsilon=args.fgsm_epsilon,
        inpainter=build_inpainter(args.inpainting_model) if "inpaint" in counterfactual else None,
    )


def _check_batch_norm(args: CLPTrainingArguments, model: nn.Module, train: Dataset, meta_batch_size: int) -> None:
    if not uses_batch_statistics(model):
        return
    known = not (args.dataloader_drop_last or isinstance(train, IterableDataset))
    last = len(train) % args.train_batch_size if known else 0
    for name, size in (
        ("per_device_train_batch_size", args.per_device_train_batch_size),
        ("meta_batch_size", meta_batch_size if args.meta_in_training_mode else None),
        ("the last batch of an epoch (set dataloader_drop_last=True)", last),
    ):
        if size == 1:
            raise ValueError(
                f"Batch normalisation needs two images or more, but {name} is 1. Use larger batches, or "
                "clp_hf.modeling.freeze_batch_norm_statistics(model)."
            )


def _check_settings(args: CLPTrainingArguments, data: Data, meta_set: MetaSet) -> None:
    """Refuse settings that the data cannot serve."""
    if args.class_prior:
        refuse_streams(data.train, "class_prior needs the class frequencies", "class_prior=False")
    if args.saliency_weight and "mask" not in data.example and not meta_set.has_masks:
        raise ValueError(
            "saliency_weight is set, but neither the training nor the meta set has a `mask` column. Add masks or "
            "set saliency_weight=0."
        )
