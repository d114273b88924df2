"""Bilevel optimisation in plain PyTorch: the look-ahead of one step, the converged head, and their hypergradients."""

from .converged import ConvergedHead
from .distributed import all_reduce_mean, all_reduce_sum
from .dual import dual_attention
from .engines import ENGINES, TrainingPass
from .functional import run_at
from .hypergradient import Hypergradient, derivative_in_output, hypergradient
from .implicit import SoftmaxRegression, Solution, implicit_hypergradient
from .lookahead import LOOKAHEADS, step_sizes
from .memory import FeatureMemory
from .recording import Recording
from .scope import SCOPES, Classifier
from .sharded import is_sharded, whole

__all__ = [
    "ENGINES",
    "LOOKAHEADS",
    "SCOPES",
    "Classifier",
    "ConvergedHead",
    "FeatureMemory",
    "Hypergradient",
    "Recording",
    "SoftmaxRegression",
    "Solution",
    "TrainingPass",
    "all_reduce_mean",
    "all_reduce_sum",
    "derivative_in_output",
    "dual_attention",
    "hypergradient",
    "implicit_hypergradient",
    "is_sharded",
    "run_at",
    "step_sizes",
    "whole",
]
