"""Fine-tune image classifiers that stay right when the background, the class frequencies or the labels lie."""

from typing import TYPE_CHECKING

from .utils.lazy import lazy_names

if TYPE_CHECKING:
    from .modeling import load_image_classifier
    from .perturbation import PerturbationNetwork
    from .trainer import CLPTrainer
    from .training_args import CLPTrainingArguments

__version__ = "0.1.0.dev0"
__all__ = ["CLPTrainer", "CLPTrainingArguments", "PerturbationNetwork", "load_image_classifier"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "CLPTrainer": ".trainer",
        "CLPTrainingArguments": ".training_args",
        "PerturbationNetwork": ".perturbation",
        "load_image_classifier": ".modeling",
    },
)
