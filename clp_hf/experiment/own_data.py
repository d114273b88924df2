"""A run on a user's own data: looked at first, then trained on by the method that follows, both told in two lines."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from datasets import DatasetDict

from ..data.loading import load_classification_dataset
from ..data.sources import FORMATS, read_splits
from ..training_args import CLPTrainingArguments
from .arguments import DataArguments, MethodArguments, ModelArguments, data_hub_kwargs
from .choosing import FEWEST, Choice, Found, check_meta_set, choose, learns_from_meta_set, more
from .experiment import Experiment
from .methods import configured
from .recipe import run_methods

OF_THE_META_SET = ("meta_samples", "meta_images", "meta_clusters", "meta_split")


def run_on_own_data(
    recipe: MethodArguments,
    data: DataArguments,
    model: ModelArguments,
    training: CLPTrainingArguments,
    given: Mapping[str, Any],
) -> tuple[Experiment, dict[str, dict[str, float]]]:
    """Train on data by the method that follows from what they have, or by the one that was asked for.

    Args:
        recipe: with `suspect_noise`; its `method` may be None.
        data, model, training: as of any recipe.
        given: by name, the arguments that the user gave, which nothing that follows from the data replaces.

    Returns:
        The experiment, and the metrics by method.

    Raises:
        ValueError: no data are named, or they cannot be read as images of two classes or more; a meta set was asked for
            that leaves too few validation images; or as `run_methods`.
    """
    if data.dataset_name is None:
        raise ValueError(f"Which images? Name them: --dataset_name path/to/folder. {FORMATS}.")
    if "validation_fraction" in given and "validation_images" not in given:
        data = replace(data, validation_images=0)
    source = read_splits(data.dataset_name, **data_hub_kwargs(data, model))
    splits = load_classification_dataset(
        source,
        data,
        train_split=data.train_split,
        validation_split=data.validation_split,
        test_split=data.test_split,
        validation_fraction=data.validation_fraction,
        validation_images=data.validation_images,
    )
    found = Found.of(splits, recipe.suspect_noise, data.groups)
    choice = choose(found, recipe.method, given)
    recipe = replace(recipe, method=choice.method)
    per_cell = training.meta_samples
    if not set(OF_THE_META_SET) & set(given):
        check_meta_set(found, choice, given)
        per_cell = found.fitting if learns_from_meta_set(choice, given) else 0
        data = data if per_cell else replace(data, meta_split="none")
    elif data.meta_split == "validation" and not data.meta_clusters:
        check_meta_set(found, choice, given)
    changes = {**choice.settings, "meta_samples": max(1, per_cell)}
    if min(filter(None, found.validation.values())) - per_cell < FEWEST:
        changes["metric_for_best_model"] = "balanced_accuracy"  # the worst of a few images is chance
    training = configured(training, {name: value for name, value in changes.items() if name not in given})
    if training.should_log:
        print(_what_was_found(found, choice, data, source, splits, per_cell, given))
        print(more(found, data.dataset_name), flush=True)
    return run_methods(recipe, data, model, training, given, partial(_experiment, source=source), advised=True)


def _experiment(recipe, data, model, training, source: DatasetDict) -> Experiment:
    return Experiment(data, model, training, splits=source)


def _what_was_found(
    found: Found,
    choice: Choice,
    data: DataArguments,
    source: DatasetDict,
    splits: DatasetDict,
    per_cell: int,
    given: Mapping[str, Any],
) -> str:
    """What was found, how it is split and what is chosen, in one line."""
    whole = source.get(data.train_split, next(iter(source.values())))
    cell = "class" if found.groups is None else "group"
    held_out, told = len(splits["validation"]), [str(found)]
    if len(whole) != len(splits["train"]):
        told.append(f"no validation split, so {held_out} images, some of every {cell}, are held out (seed 0)")
    if data.meta_split != "none":
        told.append(f"{per_cell} {data.meta_split} images of every {cell} are the meta set")
    return f"Found: {'; '.join(told)}. Chosen: {choice.flags(given)} ({choice.reason})."
