"""One page of HTML about one run or several: settings, results, curves, pictures, and how the runs differ."""

from ..utils.extras import needed_by

with needed_by("The report"):
    from .page import write_report

__all__ = ["write_report"]
