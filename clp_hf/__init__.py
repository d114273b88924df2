"""Fine-tune image classifiers that stay right when the background, the class frequencies or the labels lie."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .perturbation import PerturbationNetwork
    from .trainer import CLPTrainer
    from .training_args import CLPTrainingArguments

__version__ = "0.1.0.dev0"
__all__ = ["CLPTrainer", "CLPTrainingArguments", "PerturbationNetwork"]

HOMES = {"CLPTrainer": ".trainer", "CLPTrainingArguments": ".training_args", "PerturbationNetwork": ".perturbation"}


def __getattr__(name: str) -> Any:
    # At first use: torch and transformers take seconds to import, which the command's help need not wait for.
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(HOMES[name], __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
