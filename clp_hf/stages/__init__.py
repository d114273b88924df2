"""What is learned of the training images between two trainings of a classifier, a file a method.

Each is a function of what the first stage left, a `Reference`, with the method's settings as keywords, to a `Learned`.
"""

from .base import Learned, Reference
from .eiil import eiil
from .george import george
from .glc import glc
from .jtt import jtt
from .ssa import ssa

__all__ = ["Learned", "Reference", "eiil", "george", "glc", "jtt", "ssa"]
