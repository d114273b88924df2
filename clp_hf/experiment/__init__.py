"""What recipes share: arguments, the data and model these name, methods, and runs that can be compared."""

from typing import TYPE_CHECKING

from ..utils.lazy import lazy_names

if TYPE_CHECKING:
    from .arguments import DataArguments, MethodArguments, ModelArguments, parse_arguments
    from .experiment import Experiment
    from .methods import METHODS, configured
    from .presets import PAPER, PRESETS
    from .recipe import SELECTED_EVERY_EPOCH, SGD, experiment_of, run_recipe

__all__ = [
    "METHODS",
    "PAPER",
    "PRESETS",
    "SELECTED_EVERY_EPOCH",
    "SGD",
    "DataArguments",
    "Experiment",
    "MethodArguments",
    "ModelArguments",
    "configured",
    "experiment_of",
    "parse_arguments",
    "run_recipe",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "METHODS": ".methods",
        "PAPER": ".presets",
        "PRESETS": ".presets",
        "SELECTED_EVERY_EPOCH": ".recipe",
        "SGD": ".recipe",
        "DataArguments": ".arguments",
        "Experiment": ".experiment",
        "MethodArguments": ".arguments",
        "ModelArguments": ".arguments",
        "configured": ".methods",
        "experiment_of": ".recipe",
        "parse_arguments": ".arguments",
        "run_recipe": ".recipe",
    },
)
