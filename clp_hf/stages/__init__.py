"""What is learned of the training images between two trainings of a classifier, a file a method.

Each is a function of what the first stage left, a `Reference`, with the method's settings as keywords, to a `Learned`.
"""

from .base import Learned, Reference
from .cnc import cnc
from .eiil import eiil
from .george import george
from .glc import glc
from .ifl import ifl
from .jtt import jtt
from .logit_correction import logit_correction
from .ssa import ssa

__all__ = ["Learned", "Reference", "cnc", "eiil", "george", "glc", "ifl", "jtt", "logit_correction", "ssa"]
