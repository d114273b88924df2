"""Data without masks, where the recipe's settings need some: what is learned by instead, chosen and said."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Container
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers.utils import logging

from ..segmentation.reports import made_of
from ..training_args import CLPTrainingArguments
from .arguments import DataArguments
from .choosing import CONVERGED, NO_INFILLS
from .experiment import Experiment
from .methods import METHODS, configured

logger = logging.get_logger(__name__)


def may_become_meta_lp(args: CLPTrainingArguments, given: Container[str]) -> bool:
    """Whether a run may turn out to be Meta-LP once its data are known to have no masks."""
    return bool(args.meta_every and args.needs_masks) and not {*NO_INFILLS} & {*given}


def needed_masks(experiment: Experiment, args: CLPTrainingArguments, given: Container[str]) -> dict[str, Any]:
    """Settings that are in the way: they need masks that are not there, and nobody asked for them.

    Args:
        experiment: whose training and meta images have masks, or boxes, or not.
        args: of the run.
        given: names of the arguments that the user gave. Where these need masks, nothing is left out: it is refused
            later.
    """
    has_masks = experiment.train.has_mask
    meta_has_masks = has_masks if experiment.meta is None else experiment.meta.has_mask
    found: dict[str, Any] = {}
    if not args.meta_every:
        return found
    if not meta_has_masks:
        found |= {name: getattr(args, name) for name in NO_INFILLS if getattr(args, name)}
    if not has_masks and "background" in args.evidence:
        found["evidence"] = args.evidence
    if not has_masks and not meta_has_masks and args.saliency_weight:
        found["saliency_weight"] = args.saliency_weight
    return {} if {*found} & {*given} else found


def instead(experiment: Experiment, args: CLPTrainingArguments, given: Container[str]) -> dict[str, Any]:
    """The settings by which a run needs no mask that is not there; none where nothing is in the way.

    Where what the background says was asked for, the known attribute stands for it, judged at a converged head, which
    is how that was measured; where no groups are known either, this is Meta-LP, CLP without causal images.

    Args:
        experiment, args, given: as for `needed_masks`.
    """
    needed = needed_masks(experiment, args, given)
    if not needed:
        return {}
    changes = {name: NO_INFILLS.get(name, 0.0) for name in needed if name != "evidence"}
    if "evidence" in needed:
        rest = [name for name in args.evidence if name != "background"]
        if experiment.group_names is not None:
            changes |= {"evidence": [*rest, "attribute"], **CONVERGED}
        else:
            changes["evidence"] = rest
    return {name: value for name, value in changes.items() if name not in given}


def fitted(
    experiment: Experiment,
    name: str,
    data: DataArguments,
    given: Container[str],
    rebuild: Callable[[DataArguments], Experiment],
) -> Experiment:
    """The experiment with what is there in the place of masks, which is said in one line.

    That is the data set that `clp-hf masks` has made of this one, where there is such a folder; else `instead`.

    Args:
        experiment: as its arguments have it.
        name: of the method that runs, in `METHODS`.
        data: that the experiment is of.
        given: names of the arguments that the user gave.
        rebuild: makes the experiment of other data.
    """
    args = configured(experiment.args, METHODS[name])
    fixed = {*given, *METHODS[name]}
    if not needed_masks(experiment, args, fixed):
        return experiment
    folder = made_masks(data.dataset_name)
    if folder and data.mask_column is None and data.box_column is None:
        logger.warning(f"{data.dataset_name} has no masks: those of {folder} are taken, which clp-hf masks made of it.")
        return rebuild(replace(data, dataset_name=folder))
    changes = instead(experiment, args, fixed)
    experiment.args = configured(experiment.args, changes)
    note = told(configured(args, changes), data.dataset_name)
    experiment.card_details.notes.append(note)
    logger.warning(note)
    return experiment


def told(args: CLPTrainingArguments, dataset_name: str) -> str:
    """What is learned by without masks, and how to get some, in one line."""
    way = f"--evidence {' '.join(args.evidence)}" if args.evidence else "Meta-LP"
    causal = "" if args.needs_masks else " and no causal images"
    return (
        f"{dataset_name} has no masks: {way}{causal} {'are' if args.evidence and causal else 'is'} chosen in the place "
        f"of what needs some. clp-hf masks --dataset_name {shlex.quote(dataset_name)} makes masks, which this command "
        "then takes."
    )


def made_masks(dataset_name: str) -> str | None:
    """The folder in which `clp-hf masks` by default puts a data set with masks, where it has made that of this one."""
    from ..segmentation.masked_dataset import MaskArguments

    folder = MaskArguments(dataset_name).output_dir
    source = made_of(folder)
    return folder if source and Path(source).resolve() == Path(dataset_name).resolve() else None
