"""The table of an evaluation in training: every group before, now, and where the checkpoint is the best so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text
from transformers import TrainerState, TrainingArguments

from ..metrics import greater_is_better
from ..utils.text import one_line

MOST_ROWS = 10
NONE = "–"
SUMMARY = {"worst_group_accuracy": "worst group", "worst_class_accuracy": "worst class", "accuracy": "average"}
SELECTING = ("worst_group_accuracy", "accuracy", "loss")  # the first that there is, where nothing selects


def evaluations(history: Sequence[Mapping[str, Any]], metrics: Mapping[str, float]) -> list[dict[str, Any]]:
    """Those of the same data set as `metrics`, the last of them, without the prefix of their names.

    Args:
        history: of the trainer's state, in which the evaluation of `metrics` is logged already.
        metrics: of an evaluation, of which `Trainer` gives the runtime too.
    """
    prefix = next((name.removesuffix("runtime") for name in metrics if name.endswith("_runtime")), "eval_")
    return [
        {"title": prefix, "step": entry["step"]}
        | {name.removeprefix(prefix): value for name, value in entry.items() if name.startswith(prefix)}
        for entry in history
        if f"{prefix}runtime" in entry
    ]


def best_step(args: TrainingArguments, state: TrainerState, saved: bool) -> int | None:
    """The step whose checkpoint is the best so far, while an evaluation is under way; None where there is none yet.

    Args:
        args, state: of the trainer, which itself decides after the evaluation.
        saved: whether this step counts: where the best checkpoint is to be loaded, only steps that are saved do.
    """
    metric = (args.metric_for_best_model or "").removeprefix("eval_")
    if not metric:
        logged = {name for entry in state.log_history for name in entry}
        metric = next((name for name in SELECTING if f"eval_{name}" in logged), "loss")
    key, steps = f"eval_{metric}", {}
    for entry in state.log_history:
        if key in entry:
            steps[entry["step"]] = entry[key]
    if args.load_best_model_at_end:
        counted = {state.best_global_step} | ({state.global_step} if saved else set())
        steps = {step: value for step, value in steps.items() if step in counted}
    greater = greater_is_better(metric) if args.greater_is_better is None else args.greater_is_better
    return (max if greater else min)(steps, key=steps.get, default=None)


def group_table(
    found: Sequence[Mapping[str, Any]], best: int | None, metric: str | None, last_step: int, selects: bool = True
) -> Group:
    """The accuracies of groups, or where there are none of classes, in percent; of many the ten that are worst now.

    Args:
        found: of `evaluations`; the last is now.
        best: of `best_step`.
        metric: by which one is the best.
        last_step: of the training.
        selects: whether the best is kept in the end.
    """
    now, before = found[-1], found[-2] if len(found) > 1 else {}
    chosen = next((entry for entry in reversed(found) if entry["step"] == best), {})
    columns = (before, now, chosen)
    kind = next((kind for kind in ("group", "class") if any(name.startswith(f"accuracy_{kind}_") for name in now)), "")
    cells = [name for name in now if kind and name.startswith(f"accuracy_{kind}_")]
    shown = cells if len(cells) <= MOST_ROWS else sorted(cells, key=now.get)[:MOST_ROWS]
    metric = (metric or "").removeprefix("eval_")

    split = one_line(now["title"].removeprefix("eval").strip("_"))
    split = f"validation {split}".strip()
    loss = f", loss {now['loss']:.4g}" if "loss" in now else ""
    at = f"; best is step {best}" if chosen else ""
    head = _name(f"{split}, step {now['step']} of {last_step}{loss}{at}", "bold")
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column(_name("accuracy, %" if kind or "accuracy" in now else ""))  # is cut where there is no room
    for heading, style in (("before", "dim"), ("now", "bold"), ("best", "green")):
        table.add_column(heading, justify="right", no_wrap=True, min_width=len("100.0"), style=style)
    for name in shown:
        table.add_row(_name(name.split("_", 2)[2]), *(_percent(column.get(name)) for column in columns))
    if others := [name for name in cells if name not in shown]:
        means = [_mean([column[name] for name in others if name in column]) for column in columns]
        table.add_row(_name(f"mean of the other {len(others)}", "italic"), *map(_percent, means))
    summary = {name: title for name, title in SUMMARY.items() if name in now}
    if kind == "group":
        summary.pop("worst_class_accuracy", None)
    else:
        summary.pop("worst_group_accuracy", None)  # is the worst class
        metric = metric.replace("worst_group_accuracy", "worst_class_accuracy")
    if metric in now and metric not in cells:
        summary.setdefault(metric, SUMMARY.get(metric, metric))
    for name, title in summary.items():
        mark = " (selects)" if selects and name == metric else ""
        value = _percent if "accuracy" in name else _number
        table.add_row(_name(f"{title}{mark}", "bold" if mark else ""), *(value(column.get(name)) for column in columns))
    return Group(head, table)


def _name(text: str, style: str = "") -> Text:
    return Text(one_line(text), style=style, no_wrap=True, overflow="ellipsis")


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _percent(value: float | None) -> str:
    return NONE if value is None else f"{100 * value:.1f}"


def _number(value: float | None) -> str:
    return NONE if value is None else f"{value:.4g}"
