"""A recipe as its command runs it, and the defaults that recipes have in common."""

import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from transformers.utils import logging

from ..hub.record import own_settings
from ..training_args import CLPTrainingArguments
from .advice import advice_on
from .arguments import DataArguments, MethodArguments, ModelArguments, read_arguments
from .console import quiet
from .experiment import Experiment
from .methods import METHODS, STAGED, check_given, configured, settings_of
from .output_folder import check_output_folder, clear_output_folder, method_named
from .packages import check_packages
from .presets import PRESETS
from .resuming import checkpoints, goes_on
from .staging import check_stages, checked_options, first_arguments, run_method
from .two_stages import FOLDER
from .without_masks import fitted, may_become_meta_lp

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
        ValueError: a setting is not valid, contradicts the method, or is one that the method has no use for; there is
            no checkpoint to resume from; or another run lies in the output folder.
    """
    (recipe, data, model, training), given = read_arguments(
        (recipe_arguments, DataArguments, ModelArguments, CLPTrainingArguments), description, defaults, presets
    )
    with quiet(recipe.verbose):
        return run_methods(recipe, data, model, training, given, build)


def run_methods(
    recipe: MethodArguments,
    data: DataArguments,
    model: ModelArguments,
    training: CLPTrainingArguments,
    given: Mapping[str, Any],
    build: Callable[..., Experiment] = experiment_of,
    advised: bool = False,
) -> tuple[Experiment, dict[str, dict[str, float]]]:
    """The runs of a recipe whose arguments are read; arguments, results and errors as for `run_recipe`.

    Args:
        recipe, data, model, training: the arguments.
        given: by name, those that the user gave.
        build: makes the experiment.
        advised: whether the user has been told already what the data are enough for.
    """
    names = list(dict.fromkeys(["erm", recipe.method])) if recipe.compare else [recipe.method]
    check_given(names, given)
    options = checked_options(names, recipe.stage_options)
    runs = {name: _of_its_own(training, name) if recipe.compare else {} for name in names}
    folders = {name: changes.get("output_dir", training.output_dir) for name, changes in runs.items()}
    firsts = {name: os.path.join(folder, FOLDER) for name, folder in folders.items() if name in STAGED}
    for name, checkpoint in checkpoints(training.resume_from_checkpoint, folders, firsts).items():
        runs[name]["resume_from_checkpoint"] = checkpoint
    configurations = [(name, configured(training, settings_of(name), **changes)) for name, changes in runs.items()]
    configurations += [(name, first_arguments(training, name, folder, options)) for name, folder in firsts.items()]
    checks = {}
    for name, args in configurations:  # what is wrong with the second is said before the first one runs
        first = args.output_dir == firsts.get(name)
        check = partial(
            check_output_folder,
            args.output_dir if first else folders[name],
            model=model.model_name_or_path,
            overwrite=recipe.overwrite_output_dir,
            resumed=goes_on(training.resume_from_checkpoint) if first else args.resume_from_checkpoint is not None,
        )
        or_method = "meta_lp" if may_become_meta_lp(args, given) else None
        check(name if name in STAGED and not first else method_named(own_settings(args)), or_method=or_method)
        if or_method:
            checks[name] = check
    check_packages([args for _, args in configurations], data, model)
    experiment = build(recipe, data, model, training)
    titles = {name: name for name in names}
    if not advised:
        rebuild = partial(build, recipe, model=model, training=training)
        for name in [name for name in names if name in METHODS]:
            experiment = fitted(experiment, name, data, given, rebuild)
        for name, check in checks.items():
            titles[name] = method_named(own_settings(configured(experiment.args, settings_of(name))))
            check(titles[name])
    for name in names:
        check_stages(experiment, name)
    if training.should_log and not advised:
        logger.warning(advice_on(experiment.train, experiment.meta, data.groups is not None))
    results, selections = {}, {}
    for name, changes in runs.items():
        folder = changes.pop("output_dir", training.output_dir)
        if training.should_save and changes["resume_from_checkpoint"] is None:
            clear_output_folder(folder, recipe.overwrite_output_dir)
        title = titles[name].upper() if recipe.compare else titles[name]
        results[title] = run_method(experiment, name, changes, folder, options)
        selections[title] = experiment.selection
    if training.should_log:
        print(f"\n{experiment.summary(results, selections)}")
        print(f"Saved: {', '.join(f'{name} in {folder}' for name, folder in folders.items())}.")
    return experiment, results


def _of_its_own(training: CLPTrainingArguments, name: str) -> dict[str, Any]:
    """Folder and repository of one of several methods."""
    folder = {"output_dir": os.path.join(training.output_dir, name)}
    return folder | ({"hub_model_id": f"{training.hub_model_id}-{name}"} if training.hub_model_id else {})
