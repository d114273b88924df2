"""Repairs of a trained classifier by its head alone, by name, and a run of one."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple

from transformers import PreTrainedModel
from transformers.utils import logging

from ..baselines import (
    AFRTrainer,
    CRTTrainer,
    DFRTrainer,
    GroupDROTrainer,
    GSRTrainer,
    JTTTrainer,
    KnownGroupsArguments,
    LWSTrainer,
    RegressionArguments,
    RegressionTrainer,
    SELFTrainer,
    TDETrainer,
)
from ..clp_head import CLPHeadArguments, CLPHeadTrainer
from ..data.groups import counts
from ..features import HeadArguments, HeadTrainer
from ..hsfm import HSFMArguments, HSFMTrainer
from ..modeling.identity import label_names
from ..modeling.loading import load_image_classifier, warn_of_random_features
from ..training_args import CLPTrainingArguments
from .advice import advice_on
from .arguments import DataArguments, ModelArguments, RunArguments, read_arguments
from .choosing import HELD_OUT
from .console import quiet
from .experiment import Experiment, hub_kwargs
from .methods import METHODS
from .output_folder import check_output_folder, clear_output_folder
from .packages import check_packages

logger = logging.get_logger(__name__)


class Repair(NamedTuple):
    """Which trainer, by which arguments; whether it is given the meta set, and begins with the classifier's head."""

    trainer: type[HeadTrainer]
    arguments: type[HeadArguments]
    takes_meta_set: bool
    starts_from_head: bool = False  # and not from the features alone


REPAIRS = {
    "clp": Repair(CLPHeadTrainer, CLPHeadArguments, True),
    "hsfm": Repair(HSFMTrainer, HSFMArguments, False, True),
    "dfr": Repair(DFRTrainer, KnownGroupsArguments, True),
    "gsr": Repair(GSRTrainer, KnownGroupsArguments, True),
    "afr": Repair(AFRTrainer, HeadArguments, False, True),
    "jtt": Repair(JTTTrainer, HeadArguments, False),
    "regression": Repair(RegressionTrainer, RegressionArguments, False),
    "group_dro": Repair(GroupDROTrainer, HeadArguments, False),
    "crt": Repair(CRTTrainer, HeadArguments, False),
    "lws": Repair(LWSTrainer, HeadArguments, False, True),
    "tde": Repair(TDETrainer, HeadArguments, False, True),
    "self": Repair(SELFTrainer, HeadArguments, False, True),
}
# What an experiment reads of the training arguments, and a repair may have as well.
OF_THE_DATA = ("seed", "meta_samples", "mask_shape")
NO_STEPS = (
    "a head is learned in one go, in seconds, without steps, checkpoints or a choice between them: leave it out. The "
    "whole network is trained by clp-hf train."
)


@dataclass
class BackboneArguments(RunArguments):
    """What every repair asks, beside what is its own."""

    train_backbone: str | None = field(
        default=None,
        metadata={"help": "Train the classifier first, as recipes/waterbirds.py does.", "choices": ["erm", "clp"]},
    )
    new_head: bool = field(
        default=False,
        metadata={"help": "Of a pretrained backbone, whose own classes are others: learn a new head for the data's."},
    )


@dataclass
class RepairArguments(BackboneArguments):
    """Which repair, and of what."""

    method: str = field(
        default="clp", metadata={"help": "How to repair; each has options of its own.", "choices": list(REPAIRS)}
    )


def run_repair(
    method: str,
    recipe_arguments: type[BackboneArguments],
    description: str,
    defaults: Mapping[str, Any],
    output_dir: str,
    prepare: Callable[[DataArguments], DataArguments] = lambda data: data,
) -> tuple[Experiment, dict[str, dict[str, float]]]:
    """A repair as its command runs it; the table of every group, before and after, is printed.

    Args:
        method: one of `REPAIRS`.
        recipe_arguments: dataclass of the recipe's own arguments.
        description: for `--help`.
        defaults: of the recipe that trains the classifiers that are repaired, by name of the field. Its image size is
            that of classifiers that are trained here alone: others have their own.
        output_dir: the default one.
        prepare: changes the arguments of the data as that recipe does.

    Returns:
        The experiment, and the metrics before and after.

    Raises:
        ValueError: a setting is not valid, another run lies in the output folder, the data do not go with the
            classifier, or lack what the repair needs.
    """
    repair = REPAIRS[method]
    (recipe, data, model, args), _ = read_arguments(
        (recipe_arguments, DataArguments, ModelArguments, repair.arguments),
        description,
        {
            **_of(DataArguments, defaults),
            "image_size": None,
            "validation_images": HELD_OUT,  # as recipes/classify.py: what it has trained on validates no repair
            "output_dir": output_dir,
            "seed": 0,
            "per_device_eval_batch_size": 64,
        },
        unused=dict.fromkeys(HeadArguments.UNUSED, NO_STEPS),
    )
    training = CLPTrainingArguments(
        **_of(CLPTrainingArguments, defaults)
        | {name: getattr(args, name) for name in OF_THE_DATA if hasattr(args, name)}
        | {"output_dir": os.path.join(args.output_dir, "backbone")}
    )
    with quiet(recipe.verbose):
        return _run(method, recipe, prepare(data), model, args, training, defaults.get("image_size"))


def _run(
    method: str,
    recipe: BackboneArguments,
    data: DataArguments,
    model: ModelArguments,
    args: HeadArguments,
    training: CLPTrainingArguments,
    trained_size: int | None,
) -> tuple[Experiment, dict[str, dict[str, float]]]:
    repair, source = REPAIRS[method], model.model_name_or_path
    check_packages([args], data, model)
    if recipe.new_head and (recipe.train_backbone or repair.starts_from_head):
        reason = "--train_backbone trains one" if recipe.train_backbone else f"{method} begins with a trained one"
        raise ValueError(f"--new_head replaces the classifier's head, and {reason}. Leave one of them out.")
    folders = {args.output_dir: repair.trainer.CARD}
    if recipe.train_backbone:
        folders[training.output_dir] = recipe.train_backbone
    for folder, written in folders.items():
        check_output_folder(folder, written, source, recipe.overwrite_output_dir, resumable=False)
    if recipe.new_head:
        warn_of_random_features(source, model.pretrained)
        experiment = Experiment(data, model, training, squeezed=False)
        classifier = experiment.build_model()
    elif recipe.train_backbone:
        data = replace(data, image_size=data.image_size or trained_size)
        experiment = Experiment(data, model, training)
        if training.should_save:
            clear_output_folder(training.output_dir, recipe.overwrite_output_dir)
        experiment.run(METHODS[recipe.train_backbone], training.output_dir)
        source = training.output_dir
        classifier = load_image_classifier(source, **experiment.hub_kwargs)
    else:
        classifier = load_image_classifier(source, image_size=data.image_size, **hub_kwargs(model))
        # the head is kept, so the data's classes take the order of the model's
        experiment = Experiment(data, model, training, known_classes=label_names(classifier), squeezed=False)
    present = counts(experiment.splits["train"], "label")
    if missing := [name for name, count in present.items() if not count]:
        raise ValueError(
            f"{source!r} tells {len(present)} classes apart, {', '.join(present)}, and the data set has no training "
            f"image of {', '.join(missing)}: give a classifier trained on its classes, or --train_backbone erm."
        )
    if training.should_log:
        logger.warning(advice_on(experiment.train, experiment.meta, data.groups is not None))

    if training.should_save:
        clear_output_folder(args.output_dir, recipe.overwrite_output_dir)
    trainer = head_trainer(repair, classifier, args, experiment, base_model=source)
    results = {"before": experiment.evaluate(trainer)}
    trainer.save_metrics("train", trainer.train().metrics)
    trainer.save_state()
    results[trainer.NAME] = experiment.evaluate(trainer)
    trainer.save_or_push()
    if training.should_log:
        print(f"\n{trainer.summary()}")
        print(experiment.table(results))
    return experiment, results


def head_trainer(
    repair: Repair, classifier: PreTrainedModel, args: HeadArguments, experiment: Experiment, **details: Any
) -> HeadTrainer:
    """The trainer of a repair, on the data of an experiment.

    Args:
        repair: one of `REPAIRS`.
        classifier: that is repaired.
        args: of the repair.
        experiment: its images are seen as for evaluation.
        **details: of the card, in the place of the experiment's.
    """
    sets = {"train_dataset": experiment.train}
    if repair.takes_meta_set and experiment.meta:
        sets["meta_dataset"] = experiment.meta
    return repair.trainer(
        classifier,
        args,
        **{name: experiment.as_evaluated(images) for name, images in sets.items()},
        eval_dataset=experiment.validation,
        processing_class=experiment.processor,
        compute_metrics=experiment.compute_metrics,
        card_details=replace(experiment.card_details, **details),
    )


def head_arguments(repair: Repair, args: CLPTrainingArguments) -> HeadArguments:
    """The arguments of a repair as those of a training have them, as far as both have them."""
    known = {item.name for item in fields(args) if item.init}
    return repair.arguments(
        **{item.name: getattr(args, item.name) for item in fields(repair.arguments) if item.init and item.name in known}
    )


def _of(arguments: type, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Those that are fields of `arguments`."""
    names = {item.name for item in fields(arguments)}
    return {name: value for name, value in defaults.items() if name in names}
