"""One-step bilevel optimisation in plain PyTorch: the look-ahead and its hypergradient."""

from .distributed import all_reduce_mean
from .functional import RandomState, run_at
from .hypergradient import ENGINES, Hypergradient, TrainingPass, dual_attention, hypergradient
from .lookahead import LOOKAHEADS, step_sizes

__all__ = [
    "ENGINES",
    "LOOKAHEADS",
    "Hypergradient",
    "RandomState",
    "TrainingPass",
    "all_reduce_mean",
    "dual_attention",
    "hypergradient",
    "run_at",
    "step_sizes",
]
