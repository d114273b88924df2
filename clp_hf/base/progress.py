"""How a run is seen while it goes on: one bar, and at every evaluation a small table of the groups."""

from __future__ import annotations

import atexit
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import transformers.trainer
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerCallback
from transformers.trainer_utils import SaveStrategy, has_length

from .group_table import best_step, evaluations, group_table

REFRESH_SECONDS = 0.1
LINES = 10  # that a training without a terminal has of its own, beside the tables
QUIET_SECONDS = 30  # for which an evaluation without a terminal says nothing
NARROW, PLAIN_WIDTH = 60, 100  # columns

_chosen: ContextVar[bool] = ContextVar("group_progress", default=False)


@contextmanager
def group_progress() -> Iterator[None]:
    """Have every trainer that is built inside show `GroupProgress` in the place of bars and printed logs."""
    token = _chosen.set(True)
    try:
        yield
    finally:
        _chosen.reset(token)


def choose_progress(trainer: Trainer) -> None:
    """Give a trainer `GroupProgress` inside `group_progress`; where it has one, take away what would say the same.

    Without bars (`disable_tqdm`) the plain Trainer prints every entry of its log as a dictionary; ours does not.
    """
    if trainer.args.disable_tqdm:
        trainer.remove_callback(PrinterCallback)
    given = any(isinstance(callback, GroupProgress) for callback in trainer.callback_handler.callbacks)
    if not (given or _chosen.get()):
        return
    for kind in (ProgressCallback, transformers.trainer.DEFAULT_PROGRESS_CALLBACK):
        trainer.remove_callback(kind)
    if not given:
        trainer.add_callback(GroupProgress())


@contextmanager
def closed_after(trainer: Trainer) -> Iterator[None]:
    """Give the terminal back when what is done inside ends, by an error too."""
    try:
        yield
    finally:
        for callback in trainer.callback_handler.callbacks:
            if isinstance(callback, GroupProgress):
                callback.close()


class GroupProgress(TrainerCallback):
    """One bar, and at every evaluation in training the accuracy of every group before, now and at the best step.

    On a terminal both are drawn in place, on stderr. Elsewhere (a pipe, a notebook, `disable_tqdm`) there are some ten
    lines a training and the tables, of plain text. The main process alone says something. A `Trainer` of clp_hf that is
    given one, `callbacks=[GroupProgress()]`, has no other bar and prints no logs; they are in `trainer_state.json`
    and wherever `report_to` sends them.

    Args:
        console: where to draw; by default stderr.
    """

    def __init__(self, console: Console | None = None):
        self.console = console or _stderr()
        self._live: Live | None = None
        self._table: Group | None = None
        self._training = False
        self._loss: float | None = None
        self._drawn = self._told = self._begun = 0.0
        self._batches = self._tenth = self._first = 0

    # ---- training ----------------------------------------------------------------------------------------------------

    def on_train_begin(self, args, state, control, **kwargs):
        """Say what begins."""
        if not state.is_world_process_zero:
            return
        self.close()
        self._training, self._table, self._loss = True, None, None
        self._begun, self._first = time.monotonic(), state.global_step
        self._tenth = LINES * state.global_step // state.max_steps
        epochs = f"{state.num_train_epochs} epoch{'s' * (state.num_train_epochs != 1)}"
        self._print(f"Training {state.max_steps} steps, {epochs}, into {args.output_dir}")
        self._open(args, state.max_steps, state.global_step)

    def on_step_end(self, args, state, control, **kwargs):
        """Move the bar."""
        if self._training:
            self._draw(completed=state.global_step, note=self._note(state))

    def on_log(self, args, state, control, logs=None, **kwargs):
        """Note the loss; without a terminal say at every tenth of the training how far it is."""
        if not self._training:
            return
        self._loss = (logs or {}).get("loss", self._loss)
        self._draw(note=self._note(state))
        if (tenth := LINES * state.global_step // state.max_steps) > self._tenth:
            self._tell(state)
            self._tenth = tenth

    def on_train_end(self, args, state, control, **kwargs):
        """Leave the last table and the full bar."""
        if self._training:
            self._draw(completed=state.global_step, note=self._note(state))
            self.close()
        self._training = False

    # ---- evaluation --------------------------------------------------------------------------------------------------

    def on_prediction_step(self, args, state, control, eval_dataloader=None, **kwargs):
        """Count the batches; outside of a training in a bar that goes when they are done."""
        if not state.is_world_process_zero or not has_length(eval_dataloader):
            return
        self._batches += 1
        done = f"{self._batches}/{len(eval_dataloader)}"
        if self._training:
            self._draw(note=f"evaluating {done}")
            return
        if self._batches == 1:
            self._told = time.monotonic()
            self._open(args, len(eval_dataloader), transient=True)
        self._draw(completed=self._batches, note="evaluating")
        if self._live is None and time.monotonic() - self._told > QUIET_SECONDS:
            self._told = time.monotonic()
            self._print(f"evaluating: batch {done}")

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        """Show the table of an evaluation in training."""
        self._predicted()
        if not self._training or not metrics:
            return
        found = evaluations(state.log_history, metrics)
        saved = control.should_save or args.save_strategy == SaveStrategy.BEST or not args.load_best_model_at_end
        selects = args.load_best_model_at_end or args.save_strategy == SaveStrategy.BEST
        best = best_step(args, state, saved)
        self._table = group_table(found, best, args.metric_for_best_model, state.max_steps, selects)
        if self._live is None:
            self._print(_as_text(self.console, self._table))
        self._draw(note=self._note(state), force=True)

    def on_predict(self, args, state, control, metrics=None, **kwargs):
        """Take the bar away."""
        self._predicted()

    def _predicted(self) -> None:
        self._batches = 0
        if not self._training:
            self.close()

    # ---- drawing -----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Draw no more, and give the terminal back: after an error too."""
        if self._live is not None:
            self._live.stop()
            self._live = None
        atexit.unregister(self.close)

    def _open(self, args: Any, total: int, completed: int = 0, transient: bool = False) -> None:
        if not self.console.is_terminal or args.disable_tqdm:
            return
        narrow = self.console.width < NARROW
        self._bar = Progress(
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            *([] if narrow else [TextColumn("{task.fields[note]}", markup=False)]),
            console=self.console,
            expand=True,
            speed_estimate_period=3600,  # steps may be far apart, and evaluations take their time too
        )
        self._task = self._bar.add_task("", total=total, completed=completed, note="")
        # no thread that refreshes: a worker process forked while it holds the console's lock would wait for ever
        self._live = Live(
            get_renderable=self._renderable,
            console=self.console,
            auto_refresh=False,
            transient=transient,
            redirect_stdout=sys.stdout.isatty(),
            redirect_stderr=True,
        )
        self._live.start()
        atexit.register(self.close)

    def _renderable(self) -> Group:
        return Group(*([] if self._table is None or not self._training else [self._table]), self._bar)

    def _draw(self, force: bool = False, **fields: Any) -> None:
        if self._live is None:
            return
        self._bar.update(self._task, **fields)
        task = self._bar.tasks[0]
        if force or task.finished or time.monotonic() - self._drawn > REFRESH_SECONDS:
            self._live.refresh()
            self._drawn = time.monotonic()

    def _note(self, state: Any) -> str:
        loss = "" if self._loss is None else f", loss {self._loss:.4g}"
        return f"epoch {state.epoch or 0:.3g}{loss}"

    def _tell(self, state: Any) -> None:
        if self._live is not None:
            return
        took = (time.monotonic() - self._begun) / max(1, state.global_step - self._first)
        left = _clock(took * (state.max_steps - state.global_step))
        self._print(f"step {state.global_step} of {state.max_steps}: {self._note(state)}, {left} left")

    def _print(self, line: str) -> None:
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)


def _stderr() -> Console:
    """Drawn on only where it is a terminal, whatever `FORCE_COLOR` and the like say of colours."""
    live = sys.stderr.isatty() and not Console(stderr=True).is_dumb_terminal
    return Console(
        stderr=True, force_terminal=live, force_jupyter=False, width=None if live else PLAIN_WIDTH, highlight=False
    )


def _as_text(console: Console, table: Group) -> str:
    with console.capture() as captured:
        console.print(table)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
