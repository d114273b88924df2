"""What recipes share: arguments, the data and model these name, methods, and runs that can be compared."""

from typing import TYPE_CHECKING

from ..utils.lazy import lazy_names

if TYPE_CHECKING:
    from .arguments import DataArguments, ModelArguments, parse_arguments
    from .experiment import Experiment
    from .methods import METHODS
    from .recipe import run_recipe

__all__ = ["METHODS", "DataArguments", "Experiment", "ModelArguments", "parse_arguments", "run_recipe"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "METHODS": ".methods",
        "DataArguments": ".arguments",
        "Experiment": ".experiment",
        "ModelArguments": ".arguments",
        "parse_arguments": ".arguments",
        "run_recipe": ".recipe",
    },
)
