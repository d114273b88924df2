"""Publishing a folder: what of it goes to the Hub, what has to be in it, and what is said when it fails."""

import glob
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import huggingface_hub
from transformers import (
    PreTrainedModel,
    TimmWrapperForImageClassification,
    TimmWrapperImageProcessor,
    Trainer,
    TrainerCallback,
)

# All that is ever pushed of a run's folder, beside the files of its processor and its method and the card's pictures:
# whatever else lies there is the user's own.
MODEL_FILES = (
    "config.json", "generation_config.json", "model.safetensors", "model.safetensors.index.json",
    "model-[0-9]*-of-[0-9]*.safetensors", "adapter_config.json", "adapter_model.safetensors", "training_args.bin",
)  # fmt: skip
RUN_FILES = (
    "README.md", "trainer_state.json", "all_results.json", "train_results.json", "eval_results.json",
    "test_results.json",
)  # fmt: skip


class PushError(ConnectionError):
    """A push that failed; the message says why and what to do."""


def model_files(folder: Path, processor: Any) -> list[str]:
    """What `Trainer.save_model` has written to a folder, of a model with this processor."""
    with tempfile.TemporaryDirectory() as empty:  # only the processor itself knows the names of its files
        if processor is not None and saves(processor):
            processor.save_pretrained(empty)
        names = files_below(Path(empty))
    found = (path.name for pattern in MODEL_FILES for path in sorted(folder.glob(pattern)))
    return [*found, *(name for name in names if (folder / name).is_file())]


def saves(processor: Any) -> bool:
    """Whether it has files of its own; that of timm, which warns of being asked, is in the model's configuration."""
    return not isinstance(processor, TimmWrapperImageProcessor)


def files_below(folder: Path) -> list[str]:
    """All files of a folder, as paths in it."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def upload(trainer: Trainer, folder: str | Path, files: Sequence[str], message: str, **kwargs: Any) -> Any:
    """Push these files of a folder, and no other: everything that is published passes here.

    Args:
        trainer: whose repository it is.
        folder: where the files are.
        files: paths in the folder; those that are not there are left out.
        message: of the commit.
        **kwargs: for `huggingface_hub.upload_folder`: `path_in_repo`, `run_as_future`; `token` and `revision` in place
            of those of the trainer's arguments.
    """
    if not sys.stderr.isatty():  # Trainer switches bars on when a training ends, also where they cannot be drawn
        huggingface_hub.utils.disable_progress_bars()
    where = {"token": trainer.args.hub_token, "revision": trainer.args.hub_revision} | kwargs
    return huggingface_hub.upload_folder(
        repo_id=trainer.hub_model_id,
        folder_path=folder,
        allow_patterns=[glob.escape(file) for file in files],
        commit_message=message,
        **where,
    )


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
        self._start_clocks()

    def on_train_end(self, args, state, control, **kwargs):
        """Stop them."""
        self._stop_clocks()

    @contextmanager
    def timed(self) -> Iterator[None]:
        """The same around a training that is not the Trainer's loop."""
        self._start_clocks()
        yield
        self._stop_clocks()

    def on_push_begin(self, args, state, control, **kwargs):
        """In the one place that is before every push, of the model or of a checkpoint."""
        if self._start is not None:
            self._read_clocks()
        if state.is_world_process_zero:
            self.complete()

    def _start_clocks(self):
        self._start = (time.perf_counter(), time.process_time())

    def _stop_clocks(self):
        self._read_clocks()
        self._start = None

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
