"""A recipe as its command runs it, and the defaults that recipes have in common."""

import os
from collections.abc import Callable, Mapping
from typing import Any

from transformers.utils import logging

from ..training_args import CLPTrainingArguments
from .advice import advice_on
from .arguments import DataArguments, MethodArguments, ModelArguments, read_arguments
from .console import quiet
from .experiment import Experiment
from .methods import METHODS, check_given, configured
from .packages import check_packages
from .presets import PRESETS
from .resuming import checkpoints

logger = logging.get_logger(__name__)

SGD = {"optim": "sgd", "optim_args": "momentum=0.9", "max_grad_norm": 0.0}
SELECTED_EVERY_EPOCH = {
    "eval_strategy": "epoch",
    "save_strategy": "epoch",
    "save_total_limit": 1,
    "load_best_model_at_end": True,
}


def experiment_of(
    recipe: MethodArguments, data: DataArguments, model: ModelArguments, training: CLPTrainingArguments
) -> Experiment:
    """The experiment of a recipe that does nothing to the data."""
    return Experiment(data, model, training)


def run_recipe(
    recipe_arguments: type[MethodArguments],
    description: str,
    defaults: Mapping[str, Any],
    build: Callable[..., Experiment] = experiment_of,
    presets: Mapping[str, Mapping[str, Any]] = PRESETS,
) -> tuple[Experiment, dict[str, dict[str, float]]]:
    """A recipe as its command runs it: one method, or with `--compare` ERM beside it; the summary is printed.

    Args:
        recipe_arguments: dataclass of the recipe's own arguments.
        description, defaults, presets: as for `parse_arguments`.
        build: makes the experiment of the recipe's own, the data, the model and the training arguments.

    Returns:
        The experiment, and the metrics by method.

    Raises:
        ValueError: a setting is not valid, contradicts the method, or is one that the method has no use for; or there
            is no checkpoint to resume from.
    """
    (recipe, data, model, training), given = read_arguments(
        (recipe_arguments, DataArguments, ModelArguments, CLPTrainingArguments), description, defaults, presets
    )
    with quiet(recipe.verbose):
        return _run(recipe, data, model, training, given, build)


def _run(
    recipe: MethodArguments,
    data: DataArguments,
    model: ModelArguments,
    training: CLPTrainingArguments,
    given: Mapping[str, Any],
    build: Callable[..., Experiment],
) -> tuple[Experiment, dict[str, dict[str, float]]]:
    names = list(dict.fromkeys(["erm", recipe.method])) if recipe.compare else [recipe.method]
    check_given(names, given)
    runs = {name: _of_its_own(training, name) if recipe.compare else {} for name in names}
    folders = {name: changes.get("output_dir", training.output_dir) for name, changes in runs.items()}
    for name, checkpoint in checkpoints(training.resume_from_checkpoint, folders).items():
        runs[name]["resume_from_checkpoint"] = checkpoint
    # what is wrong with the second is said before the first runs
    check_packages([configured(training, METHODS[name], **changes) for name, changes in runs.items()], data, model)
    experiment = build(recipe, data, model, training)
    if training.should_log:
        logger.warning(advice_on(experiment.train, experiment.meta))
    results = {}
    for name, changes in runs.items():
        folder = changes.pop("output_dir", training.output_dir)
        results[name.upper() if recipe.compare else name] = experiment.run(METHODS[name] | changes, folder)
    if training.should_log:
        print(f"\n{experiment.summary(results)}")
    return experiment, results


def _of_its_own(training: CLPTrainingArguments, name: str) -> dict[str, Any]:
    """Folder and repository of one of several methods."""
    folder = {"output_dir": os.path.join(training.output_dir, name)}
    return folder | ({"hub_model_id": f"{training.hub_model_id}-{name}"} if training.hub_model_id else {})
