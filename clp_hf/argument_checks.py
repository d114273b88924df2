"""What is asked of the arguments of `CLPTrainer`, before anything else is looked at."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from .bilevel import ENGINES, LOOKAHEADS, SCOPES
from .causal import COUNTERFACTUAL_INFILLS, FACTUAL_INFILLS, check_infills
from .losses import TRAINING_LOSSES
from .perturbation import (
    ACTIVATIONS,
    EVIDENCE_NETWORKS,
    META_NETWORKS,
    NONE,
    OPTIMIZERS,
    PERTURBED_LOGITS,
    check_characteristics,
    evidence_margins,
    evidence_names,
)
from .schedules import SCHEDULES, build_schedule
from .utils.names import did_you_mean

if TYPE_CHECKING:
    from .training_args import CLPTrainingArguments

TRAIN_SAMPLINGS = ("random", "class", "group", "group_subset", "weight", *SCHEDULES)
ON_NONFINITE = ("stop", "skip")
LOSS_NAMES = ("cross_entropy", *TRAINING_LOSSES)


def normalise_names(args: CLPTrainingArguments) -> None:
    """What is named is in its own form: `none` alone, as a command line has it, is an empty list.

    `background_evidence`, where it is given, adds or removes the first of `evidence`.

    Raises:
        ValueError: a name of evidence is unknown.
    """
    for name in ("counterfactual_infills", "factual_infills", "train_infills"):
        if getattr(args, name) == [NONE]:
            setattr(args, name, [])
    args.evidence, background = evidence_names(args.evidence), args.background_evidence
    args.background_evidence = None
    if background is None:
        return
    others = [name for name in args.evidence if name != "background"]
    args.evidence = evidence_names(["background", *others] if background else others)
    warnings.warn(
        f"background_evidence is deprecated and will be removed; in its place goes evidence={args.evidence}.",
        FutureWarning,
        stacklevel=4,
    )


def check_arguments(args: CLPTrainingArguments) -> None:
    """Refuse a value that is not valid, or that contradicts another.

    Raises:
        ValueError: names both, and what to choose.
    """
    for name, valid in (
        ("lookahead", LOOKAHEADS),
        ("lookahead_scope", tuple(SCOPES)),
        ("hypergradient", ENGINES),
        ("mask_shape", ("box", "exact")),
        ("train_sampling", TRAIN_SAMPLINGS),
        ("training_loss", LOSS_NAMES),
        ("meta_network", tuple(META_NETWORKS)),
        ("perturbed_logits", PERTURBED_LOGITS),
        ("perturbation_optim", tuple(OPTIMIZERS)),
        ("perturbation_activation", tuple(ACTIVATIONS)),
        ("on_nonfinite", ON_NONFINITE),
        ("evidence_network", EVIDENCE_NETWORKS),
    ):
        if getattr(args, name) not in valid:
            value = getattr(args, name)
            raise ValueError(f"{name} is {value!r}; choose one of {', '.join(valid)}.{did_you_mean(value, valid)}")
    for name in ("meta_every", "saliency_weight", "perturbation_weight_decay", "perturbation_bound"):
        if getattr(args, name) < 0:
            raise ValueError(f"{name} is {getattr(args, name)}; expected 0 or more.")
    for name in (
        "perturbation_hidden_size", "perturbation_learning_rate", "meta_samples", "augmented_copies", "evidence_every",
    ):  # fmt: skip
        if getattr(args, name) <= 0:
            raise ValueError(f"{name} is {getattr(args, name)}; expected more than 0.")
    if not 0 <= args.perturbation_start < 1:
        raise ValueError(
            f"perturbation_start is {args.perturbation_start}; expected a fraction of training, 0 or more and less "
            "than 1."
        )
    if not all(0 < fraction < 1 for fraction in args.lr_decay_at):
        raise ValueError(f"lr_decay_at is {args.lr_decay_at}; expected fractions of training, above 0 and below 1.")
    for name in ("meta_batch_size", "saliency_batch_size"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise ValueError(f"{name} is {getattr(args, name)}; expected 1 or more.")
    _check_gradient_checkpointing(args)
    _check_converged(args)
    check_characteristics(args.characteristics)
    if margins := evidence_margins(args.characteristics):
        raise ValueError(f"characteristics name {', '.join(margins)}, which come with `evidence`. Leave them out.")
    _check_training_loss(args)
    _check_train_sampling(args)
    _check_causal_images(args)
    if args.evidence and args.perturb_meta_logits:
        raise ValueError("evidence is measured on training images only; set perturb_meta_logits=False.")
    logit_options = ("evidence", "perturb_meta_logits", "class_prior")
    asked = [name for name in logit_options if getattr(args, name)]
    if args.perturbed_logits == "own":
        asked.append("perturbed_logits='own'")
    if args.meta_network != "perturbation" and asked:
        raise ValueError(f"meta_network={args.meta_network!r} perturbs no logits, and goes without {', '.join(asked)}.")
    _check_meta_network(args)
    if args.class_prior and args.perturb_meta_logits:
        raise ValueError("class_prior is of the training set only; set perturb_meta_logits=False.")


def _check_gradient_checkpointing(args: CLPTrainingArguments) -> None:
    if not (args.meta_every and args.gradient_checkpointing):
        return
    if (args.gradient_checkpointing_kwargs or {}).get("use_reentrant"):
        raise ValueError(
            "The look-ahead takes gradients by torch.autograd.grad, which reentrant checkpointing refuses; set "
            "use_reentrant=False."
        )
    if args.hypergradient == "double_backward":
        raise ValueError(
            "hypergradient='double_backward' does not go together with gradient checkpointing; 'forward' is as exact, "
            "and does."
        )


def _check_converged(args: CLPTrainingArguments) -> None:
    if args.lookahead_memory < 1:
        raise ValueError(f"lookahead_memory is {args.lookahead_memory}; expected 1 or more images.")
    if not args.lookahead_ridge > 0:
        raise ValueError(
            f"lookahead_ridge is {args.lookahead_ridge}; expected above 0: without it separable classes have no "
            "minimum, and the inner problem is singular."
        )
    if args.lookahead != "converged" or not args.meta_every:
        return
    off = {
        "lookahead_scope": "full",
        "hypergradient": "forward",
        "recompute_training_forward": False,
        "perturb_meta_logits": False,
        "label_smoothing_factor": 0.0,
    }
    asked = [name for name, value in off.items() if getattr(args, name) != value]
    if asked:
        raise ValueError(
            "lookahead='converged' takes no step of the network, and its head is that of the plain cross-entropy; it "
            f"goes without {', '.join(f'{name}={getattr(args, name)!r}' for name in asked)}. Set "
            f"{', '.join(f'{name}={off[name]!r}' for name in asked)}, or lookahead='match'."
        )


def _check_meta_network(args: CLPTrainingArguments) -> None:
    network = META_NETWORKS[args.meta_network]
    if not args.meta_every:
        return
    refused = {}
    if network.OF_BATCH or network.takes_features:
        refused["lookahead"] = ("converged", "match")
    if network.OF_BATCH:
        refused["reuse_gradient"] = (True, False)
    if network.at_rest:
        refused["hypergradient"] = ("double_backward", "forward")
    for name, (value, instead) in refused.items():
        if getattr(args, name) == value:
            raise ValueError(
                f"meta_network={args.meta_network!r} does not go with {name}={value!r}; set {name}={instead!r}."
            )


def _check_causal_images(args: CLPTrainingArguments) -> None:
    check_infills("counterfactual", args.counterfactual_infills, COUNTERFACTUAL_INFILLS)
    check_infills("factual", args.factual_infills, FACTUAL_INFILLS)
    check_infills("training", args.train_infills, FACTUAL_INFILLS)
    if not 0 < args.train_infill_share <= 1:
        raise ValueError(
            f"train_infill_share is {args.train_infill_share}; expected more than 0 and at most 1. With an empty "
            "train_infills all images stay as they are."
        )
    if "background" in args.evidence and not args.counterfactual_infills:
        raise ValueError(
            "evidence 'background' needs counterfactual_infills, to take the foreground out of images. 'attribute' and "
            "'bias' do without."
        )


def _check_train_sampling(args: CLPTrainingArguments) -> None:
    name, options = args.train_sampling, args.train_sampling_options
    if name in SCHEDULES:
        build_schedule(name, options)
    elif options:
        raise ValueError(f"train_sampling={name!r} has no options; found {options}.")


def _check_training_loss(args: CLPTrainingArguments) -> None:
    name, options = args.training_loss, args.training_loss_options
    if name == "cross_entropy":
        if options:
            raise ValueError(f"training_loss='cross_entropy' has no options; found {options}.")
        return
    for setting, expected in (("meta_every", 0), ("label_smoothing_factor", 0.0)):
        if (value := getattr(args, setting)) != expected:
            raise ValueError(f"training_loss={name!r} goes with {setting}={expected} only; found {value}.")
