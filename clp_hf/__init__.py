"""Fine-tune image classifiers that stay right when the background, the class frequencies or the labels lie."""

from .perturbation import PerturbationNetwork
from .trainer import CLPTrainer
from .training_args import CLPTrainingArguments

__version__ = "0.1.0.dev0"
__all__ = ["CLPTrainer", "CLPTrainingArguments", "PerturbationNetwork"]
