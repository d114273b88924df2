"""Publishing a folder: what has to be in it, and what is said when it fails."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import (
    PreTrainedModel,
    TimmWrapperForImageClassification,
    TimmWrapperImageProcessor,
    Trainer,
    TrainerCallback,
)


class PushError(ConnectionError):
    """A push that failed; the message says why and what to do."""


@contextmanager
def clear_push_errors(trainer: Trainer) -> Iterator[None]:
    """Push what `trainer` has, inside.

    Raises:
        PushError: the Hub refused or could not be reached; the message says what to do and where the files are.
        ValueError: as raised inside: the Hub found the contents wrong, not the connection.
    """
    try:
        yield
    except (ValueError, PushError):
        raise
    except Exception as error:  # of the HTTP client, of huggingface_hub, or of its upload threads
        raise PushError(push_failure(error, trainer)) from error


def push_failure(error: BaseException, trainer: Trainer) -> str:
    """What is told about a push that failed with `error`, and what to do."""
    causes = [error]
    while cause := causes[-1].__cause__:
        causes.append(cause)
    if any(getattr(getattr(cause, "response", None), "status_code", None) in (401, 403) for cause in causes):
        advice = "Log in with `hf auth login`, or give a token that may write there: --hub_token, or HF_TOKEN"
    else:
        advice = "Call push_to_hub() again: it uploads only what is missing"
    reasons = dict.fromkeys(" ".join(f"{type(cause).__name__}: {cause}".split()) for cause in causes)
    return (
        f"{repository_name(trainer)!r} was not pushed. {advice}. The files in {trainer.args.output_dir!r} are intact. "
        f"({'; '.join(reasons)})"
    )


def repository_name(trainer: Trainer) -> str:
    """Where `trainer` pushes to, or would."""
    args = trainer.args
    return trainer.hub_model_id or args.hub_model_id or Path(args.output_dir).absolute().name


class PublishingCallback(TrainerCallback):
    """Times the training, and lets its trainer complete a folder before the folder is pushed.

    Args:
        complete: writes to `args.output_dir` what the `Trainer` does not know of.

    Attributes:
        runtime, cpu_seconds: of `train()` so far, in this process; None before it.
    """

    def __init__(self, complete):
        self.complete = complete
        self.runtime = self.cpu_seconds = self._start = None

    def on_train_begin(self, args, state, control, **kwargs):
        """Start the clocks."""
        self._start = (time.perf_counter(), time.process_time())

    def on_train_end(self, args, state, control, **kwargs):
        """Stop them."""
        self._read_clocks()
        self._start = None

    def on_push_begin(self, args, state, control, **kwargs):
        """In the one place that is before every push, of the model or of a checkpoint."""
        if self._start is not None:
            self._read_clocks()
        if state.is_world_process_zero:
            self.complete()

    def _read_clocks(self):
        self.runtime = time.perf_counter() - self._start[0]
        self.cpu_seconds = time.process_time() - self._start[1]


def for_timm(model: PreTrainedModel, processor: Any, state_dict: dict | None) -> dict | None:
    """Have the files of a timm wrapper be those that timm itself reads; other models are left alone.

    Args:
        model: about to be saved.
        processor: what its images were preprocessed with, as far as it is known.
        state_dict: of the model; None for `model.state_dict()`.

    Returns:
        The `state_dict` to save.
    """
    if not isinstance(model, TimmWrapperForImageClassification):
        return state_dict
    config = model.config
    config.model_args = config.model_args or {}  # timm does not read a null
    if isinstance(processor, TimmWrapperImageProcessor):
        # Such a processor saves nothing: the preprocessing is read from here, and must be the one trained with.
        config.pretrained_cfg = {**(config.pretrained_cfg or {}), **processor.data_config}
    # transformers leaves its prefix in the names when the model was built and not loaded; it reads them without it too.
    return {name.removeprefix("timm_model."): value for name, value in (state_dict or model.state_dict()).items()}
