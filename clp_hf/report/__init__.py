"""One page of HTML about one run or several: settings, results, curves, pictures, and how the runs differ."""

from .page import write_report

__all__ = ["write_report"]
