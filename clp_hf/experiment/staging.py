"""A run of a method of two stages: the first one in a sub-folder, where it is found again by a run that goes on."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from transformers.trainer_utils import get_last_checkpoint
from transformers.utils import logging

from ..base.identity import data_identity
from ..data.dataset import ImageClassificationDataset
from ..features.extraction import extract_features
from ..features.feature_set import FeatureSet
from ..hub.history import selection_of
from ..hub.record import training_settings
from ..modeling.loading import load_image_classifier
from ..stages import Learned, Reference
from ..training_args import CLPTrainingArguments
from ..utils.files import write_whole
from ..utils.options import check_options, require
from .experiment import Experiment
from .methods import METHODS, STAGED, configured
from .output_folder import clear_output_folder
from .repairs import REPAIRS, head_arguments, head_trainer
from .resuming import goes_on
from .two_stages import FOLDER, SHARE, Stages

logger = logging.get_logger(__name__)

DONE = "stage.json"  # in the folder of a first stage that has ended: what it was trained by
LEARNED = "learned.safetensors"


def run_method(
    experiment: Experiment, name: str, changes: Mapping[str, Any], output_dir: str, options: Mapping[str, Any] = {}
) -> dict[str, float]:
    """A run of a method, of one stage or of two; arguments, results and errors as of `Experiment.run`.

    Args:
        experiment: data and model.
        name: of the method, in `METHODS` or `STAGED`.
        changes: of the training arguments of this run.
        output_dir: of this run; a first stage has a folder in it.
        options: of the two stages, in the place of published ones.
    """
    if name in METHODS:
        return experiment.run(METHODS[name] | changes, output_dir)
    stages, folder = STAGED[name], os.path.join(output_dir, FOLDER)
    check_stages(experiment, name)
    args = configured(experiment.args, stages.settings, **changes, output_dir=output_dir)
    fingerprint = _run_first(experiment, name, args, folder, options)
    if stages.repair:
        return _repaired(experiment, name, args, folder)
    learned = _learned(experiment, stages, folder, fingerprint, options)
    if experiment.args.should_log:
        logger.warning(learned.told)
    with _telling(experiment, learned.told, method=name):
        return experiment.run(stages.second | changes, output_dir, train=with_learned(experiment, learned))


def check_stages(experiment: Experiment, name: str) -> None:
    """Whether there is what a method needs of the data.

    Raises:
        ValueError: there is no meta set, or it has no groups.
    """
    needs = STAGED[name].needs if name in STAGED else None
    if needs and experiment.meta is None:
        raise ValueError(
            f"--method {name} learns from a meta set, and there is none. Have one taken out of a split: --meta_split "
            "validation, --meta_samples 10."
        )
    if needs == "meta groups" and experiment.meta.group is None:
        raise ValueError(
            f"--method {name} learns from the groups of the meta images, and they have none. Give the data set a group "
            "or attribute column (--group_column, --attribute_column); george and jtt need none."
        )


def with_learned(experiment: Experiment, learned: Learned) -> ImageClassificationDataset:
    """The training images with what a first stage has learned of them; with a corruption matrix, and meta images.

    Those are of group 1, and are trusted; training images are of group 0.
    """
    if learned.corruption is None:
        return experiment.train.learned(group=learned.group, weight=learned.weight)
    images = experiment.train.joined(experiment.meta, "training and meta images")
    trusted = torch.arange(len(images)) >= len(experiment.train)
    return images.learned(group=trusted.long(), corruption=learned.corruption)


def first_arguments(
    args: CLPTrainingArguments, name: str, output_dir: str, options: Mapping[str, Any]
) -> CLPTrainingArguments:
    """The training arguments of the first stage.

    Where something is learned between, the first classifier is that of its last step: it is no result, and chosen by
    the worst group it would have less to tell.

    Args:
        args: of the recipe.
        name: of a method in `STAGED`.
        output_dir: of the first stage.
        options: as of `checked_options`.

    Raises:
        ValueError: as `configured`.
    """
    stages = STAGED[name]
    share = options.get(SHARE, stages.share)
    changes: dict[str, Any] = {
        "output_dir": output_dir, "push_to_hub": False, "hub_model_id": None, "resume_from_checkpoint": None,
    }  # fmt: skip
    if share < 1:
        changes["num_train_epochs"] = args.num_train_epochs * share
        changes["max_steps"] = max(1, round(args.max_steps * share)) if args.max_steps > 0 else args.max_steps
    if stages.between is not None:
        changes["load_best_model_at_end"] = False
    return configured(args, stages.first, **changes)


def checked_options(names: Sequence[str], options: Mapping[str, Any] | str | None) -> dict[str, Any]:
    """`--stage_options`, which are those of the one method of two stages that runs.

    Args:
        names: of the methods that run.
        options: by name, numbers; or JSON of that.

    Raises:
        ValueError: it is no JSON, no method of two stages runs, it has no such option, or a value is no number or out
            of range.
    """
    if not options:
        return {}
    if isinstance(options, str):
        with suppress(json.JSONDecodeError):  # what it is instead is said below
            options = json.loads(options)
    staged = [name for name in names if name in STAGED]
    if not staged:
        raise ValueError(
            f"--stage_options were given, and --method {' and '.join(names)} has one stage. Leave them out, or choose "
            f"one of {', '.join(STAGED)}."
        )
    (name,) = staged
    check_options(f"--method {name} (--stage_options)", STAGED[name].options, options)
    share = options.get(SHARE, 1)
    require(0 < share <= 1, SHARE, share, "a share of the training, above 0 and up to 1")
    return dict(options)


def _run_first(
    experiment: Experiment, name: str, args: CLPTrainingArguments, folder: str, options: Mapping[str, Any]
) -> str:
    """See to it that a first stage of these arguments lies in the folder; what it is known by.

    Raises:
        ValueError: the run is resumed, and its first stage was of other arguments.
    """
    first = first_arguments(args, name, folder, options)
    now = _described(experiment, first)
    fingerprint = hashlib.sha256(json.dumps(now, sort_keys=True).encode()).hexdigest()
    was = _read(Path(folder) / DONE)
    if was == now:
        logger.warning(f"{folder!r} holds the first stage of these arguments: it is not trained again.")
        return fingerprint
    if was is not None:
        told = ", ".join(_differences(was, now))
        if args.resume_from_checkpoint:
            raise ValueError(
                f"{folder!r} holds a first stage of other arguments ({told}), which the checkpoint "
                f"{args.resume_from_checkpoint} goes on from. Give those, or leave --resume_from_checkpoint out to "
                "train both stages anew."
            )
        logger.warning(f"{folder!r} holds a first stage of other arguments ({told}): it is trained anew.")
        if args.should_save:
            clear_output_folder(folder, overwrite=True)
            (Path(folder) / DONE).unlink()
    unfinished = get_last_checkpoint(folder) if was is None and os.path.isdir(folder) else None
    changes = {"resume_from_checkpoint": unfinished if goes_on(experiment.args.resume_from_checkpoint) else None}
    experiment.run({}, folder, args=replace(first, **changes))
    if args.should_save:
        with write_whole(Path(folder) / DONE) as part:
            part.write_text(json.dumps(now, indent=2) + "\n", encoding="utf-8")
    PartialState().wait_for_everyone()
    return fingerprint


def _described(experiment: Experiment, args: CLPTrainingArguments) -> dict[str, Any]:
    """What decides what a first stage learns, as JSON has it."""
    training, own = training_settings(args)
    described = {
        "settings": {**experiment.card_details.settings, **training, **own},
        "data": {part.name: data_identity(part) for part in (experiment.train, experiment.meta) if part is not None},
        "processes": args.world_size,
    }
    return json.loads(json.dumps(described, default=str))


def _differences(was: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    found = [
        f"{key} was {was.get(part, {}).get(key)!r}, is {now[part].get(key)!r}"
        for part in ("settings", "data")
        for key in {**was.get(part, {}), **now[part]}
        if was.get(part, {}).get(key) != now[part].get(key)
    ]
    return found or ["the number of processes"]


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def _learned(
    experiment: Experiment, stages: Stages, folder: str, fingerprint: str, options: Mapping[str, Any]
) -> Learned:
    """What is learned between the stages: from the folder where that run has learned it before."""
    own = {name: value for name, value in options.items() if name in stages.options[1:]}
    path = Path(folder) / LEARNED
    fingerprint = f"{fingerprint} {stages.between.__name__} {sorted(own.items())}"
    learned = Learned.load(path, fingerprint)
    if learned is None:
        model = load_image_classifier(folder, **experiment.hub_kwargs)
        seen: dict[str, FeatureSet | None] = {
            part: None if images is None else extract_features(model, experiment.as_evaluated(images), experiment.args)
            for part, images in (("train", experiment.train), ("meta", experiment.meta if stages.needs else None))
        }
        reference = Reference(
            **seen, label_names=experiment.label_names, group_names=experiment.group_names, seed=experiment.args.seed
        )
        learned = stages.between(reference, **own)
        if experiment.args.should_save:
            learned.save(path, fingerprint)
        PartialState().wait_for_everyone()
    return learned


@contextmanager
def _telling(experiment: Experiment, note: str, **settings: Any) -> Iterator[None]:
    """Meanwhile cards tell this too, and records have these settings."""
    before = experiment.card_details
    experiment.card_details = replace(before, notes=[*before.notes, note], settings={**before.settings, **settings})
    try:
        yield
    finally:
        experiment.card_details = before


def _repaired(experiment: Experiment, name: str, args: CLPTrainingArguments, folder: str) -> dict[str, float]:
    """The first classifier with another head."""
    repair = REPAIRS[STAGED[name].repair]
    classifier = load_image_classifier(folder, **experiment.hub_kwargs)
    told = "Its backbone is that of a first stage, plain training on the same images."
    with _telling(experiment, told, method=name):
        trainer = head_trainer(repair, classifier, head_arguments(repair, args), experiment)
        result = trainer.train()
        trainer.save_metrics("train", result.metrics)
        trainer.save_state()
        metrics = experiment.evaluate(trainer)
        experiment.selection = selection_of(trainer)
        if experiment.args.should_log:
            logger.warning(trainer.summary())
        trainer.save_or_push()
    return result.metrics | metrics
