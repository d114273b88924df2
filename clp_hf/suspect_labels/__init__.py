"""Which labels to look at: those that are probably wrong, and not those of images that are rare in their class."""

from .suspects import SuspectLabels, suspect_labels

__all__ = ["SuspectLabels", "suspect_labels"]
