"""A recipe as its command runs it."""

from collections.abc import Callable, Mapping
from typing import Any

from ..training_args import CLPTrainingArguments
from .arguments import DataArguments, ModelArguments, parse_arguments
from .experiment import Experiment
from .methods import METHODS


def run_recipe(
    build: Callable[..., "Experiment"], recipe_arguments: type, description: str, defaults: Mapping[str, Any]
) -> tuple["Experiment", dict[str, dict[str, float]]]:
    """A recipe as its command runs it: one method, whose summary is printed.

    Args:
        build: makes the experiment of the recipe's own, the data, the model and the training arguments.
        recipe_arguments: dataclass with a field `method`.
        description, defaults: as for `parse_arguments`.

    Returns:
        The experiment, and the metrics by method.
    """
    recipe, data, model, training = parse_arguments(
        (recipe_arguments, DataArguments, ModelArguments, CLPTrainingArguments), description, defaults
    )
    experiment = build(recipe, data, model, training)
    results = {recipe.method: experiment.run(METHODS[recipe.method], training.output_dir)}
    if training.should_log:
        print(f"\n{experiment.summary(results)}")
    return experiment, results
