"""A data set before any training: what it holds, what is wrong with it, and what gives the class away."""

from .audit import Audit, Inspection, inspect_dataset
from .findings import Finding, find, next_commands
from .page import write_page
from .text import format_inspection

__all__ = [
    "Audit",
    "Finding",
    "Inspection",
    "find",
    "format_inspection",
    "inspect_dataset",
    "next_commands",
    "write_page",
]
