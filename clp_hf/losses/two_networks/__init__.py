"""Training losses of two networks, of which one is kept, a file a method.

Each is a `PairLoss`: of the logits that both give a batch, the loss of each. `TwoNetworkObjective` trains them.
"""

from .base import PairLoss, PairLosses
from .co_teaching import CoTeaching
from .jocor import JoCoR
from .learning_from_failure import LearningFromFailure

__all__ = ["CoTeaching", "JoCoR", "LearningFromFailure", "PairLoss", "PairLosses"]
