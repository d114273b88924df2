"""What recipes share: arguments, the data and model these name, methods, and runs that can be compared."""

from typing import TYPE_CHECKING

from ..utils.lazy import lazy_names

if TYPE_CHECKING:
    from .arguments import (
        DataArguments,
        MethodArguments,
        ModelArguments,
        chosen,
        data_hub_kwargs,
        parse_arguments,
        read_arguments,
    )
    from .console import ConsoleArguments, quiet
    from .experiment import Experiment
    from .methods import METHODS, STAGED, configured
    from .own_data import run_on_own_data
    from .presets import PAPER, PRESETS, By
    from .recipe import SELECTED_EVERY_EPOCH, SGD, experiment_of, run_recipe
    from .repairs import REPAIRS, BackboneArguments, RepairArguments, run_repair

__all__ = [
    "METHODS",
    "PAPER",
    "PRESETS",
    "REPAIRS",
    "SELECTED_EVERY_EPOCH",
    "SGD",
    "STAGED",
    "BackboneArguments",
    "By",
    "ConsoleArguments",
    "DataArguments",
    "Experiment",
    "MethodArguments",
    "ModelArguments",
    "RepairArguments",
    "chosen",
    "configured",
    "data_hub_kwargs",
    "experiment_of",
    "parse_arguments",
    "quiet",
    "read_arguments",
    "run_on_own_data",
    "run_recipe",
    "run_repair",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "METHODS": ".methods",
        "PAPER": ".presets",
        "PRESETS": ".presets",
        "REPAIRS": ".repairs",
        "SELECTED_EVERY_EPOCH": ".recipe",
        "SGD": ".recipe",
        "STAGED": ".methods",
        "BackboneArguments": ".repairs",
        "By": ".presets",
        "ConsoleArguments": ".console",
        "DataArguments": ".arguments",
        "Experiment": ".experiment",
        "MethodArguments": ".arguments",
        "ModelArguments": ".arguments",
        "RepairArguments": ".repairs",
        "chosen": ".arguments",
        "configured": ".methods",
        "data_hub_kwargs": ".arguments",
        "experiment_of": ".recipe",
        "parse_arguments": ".arguments",
        "quiet": ".console",
        "read_arguments": ".arguments",
        "run_on_own_data": ".own_data",
        "run_recipe": ".recipe",
        "run_repair": ".repairs",
    },
)
