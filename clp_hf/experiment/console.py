"""What a command prints: progress, results, and of warnings those that whoever reads them can do something about."""

from __future__ import annotations

import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

# Each is the beginning of a message that is about the libraries themselves, and says nothing of the run.
UNHEARD = (
    "Repo card metadata block was not found",
    "`torch.jit.script` is deprecated",
    "mtime may not be reliable on this filesystem",
    "'pin_memory' argument is set as true but no accelerator is found",
)
LIBRARIES = ("transformers", "datasets", "huggingface_hub", "accelerate", "timm")


@dataclass
class ConsoleArguments:
    """How much is said."""

    verbose: bool = field(
        default=False,
        metadata={"help": "Every log entry as it is, and every warning of the libraries, in the place of tables."},
    )


@contextmanager
def quiet(verbose: bool = False) -> Iterator[None]:
    """Run a command inside: bars and tables of `GroupProgress`, and each warning that can be acted on, once.

    Args:
        verbose: change nothing.
    """
    if verbose:
        yield
        return
    from ..base.progress import group_progress  # help waits for nothing heavy

    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("once", append=True)
        for beginning in UNHEARD:
            warnings.filterwarnings("ignore", re.escape(beginning))
        stack.enter_context(_plain_warnings())
        stack.enter_context(_heard_once())
        stack.enter_context(_without_bars())
        stack.enter_context(group_progress())
        yield


class _Heard(logging.Filter):
    """What is news, of the main process alone unless it is an error."""

    def __init__(self):
        super().__init__()
        self.told = set()
        self.is_main = os.environ.get("RANK", "0") == "0"

    def filter(self, record):
        if not hasattr(record, "is_news"):  # of several handlers the first decides
            message = record.getMessage()
            record.is_news = (record.name, message) not in self.told and self.is_main
            record.is_news &= not message.startswith(UNHEARD)
            record.is_news |= record.levelno >= logging.ERROR
            self.told.add((record.name, message))
        return record.is_news


class _Stderr:
    """Standard error as it is when it is written to: above a bar, while there is one."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


@contextmanager
def _heard_once() -> Iterator[None]:
    """Filter what handlers show, and have those of the libraries write above the bar."""
    loggers = [logging.getLogger(name) for name in ("", *LIBRARIES)]
    handlers = {handler: None for logger in loggers for handler in logger.handlers} | {logging.lastResort: None}
    heard, streams = _Heard(), {}
    for handler in handlers:
        handler.addFilter(heard)
        if type(handler) is logging.StreamHandler and handler.stream is sys.stderr:
            streams[handler] = handler.setStream(_Stderr())
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(heard)
        for handler, stream in streams.items():
            handler.setStream(stream)


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """A warning as a sentence, without the line of code that gave it."""
    before = warnings.formatwarning
    warnings.formatwarning = lambda message, category, *_, **__: f"Warning: {message}\n"
    try:
        yield
    finally:
        warnings.formatwarning = before


@contextmanager
def _without_bars() -> Iterator[None]:
    """No bars of loading and writing weights; of downloads and of reading data where they can be drawn."""
    import datasets
    from huggingface_hub import utils as hub
    from transformers.utils import logging as transformers_logging

    was = transformers_logging.is_progress_bar_enabled()
    hub_had, data_had = not hub.are_progress_bars_disabled(), not datasets.are_progress_bars_disabled()
    transformers_logging.disable_progress_bar()  # and those of the Hub with it
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    elif hub_had:
        hub.enable_progress_bars()
    try:
        yield
    finally:
        if was:
            transformers_logging.enable_progress_bar()
        (hub.enable_progress_bars if hub_had else hub.disable_progress_bars)()
        (datasets.enable_progress_bars if data_had else datasets.disable_progress_bars)()
