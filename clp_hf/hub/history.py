"""What a trainer's log tells of the weights that it holds now, compared with these weights."""

import re
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import Trainer

from .schema import WEIGHTS

SPLITS = {"eval": "validation"}
RUNTIME = "_runtime"  # ends a name that every evaluation logs, after its prefix
Log = Sequence[Mapping[str, Any]]


def fingerprint(model: nn.Module) -> int:
    """A number of 48 bits that other weights or buffers do not have."""
    digest = blake2b(digest_size=6)
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return int.from_bytes(digest.digest(), "big")


def prefixes(metrics: Mapping[str, Any]) -> list[str]:
    """What starts the names of each evaluation in `metrics`: `eval`, `eval_<set>`, `test` …

    A class or group may be called `runtime`: that makes no prefix of `eval_accuracy_class`.
    """
    found = [name.removesuffix(RUNTIME) for name in metrics if name.endswith(RUNTIME)]
    of_cells = re.compile(f"({'|'.join(map(re.escape, found))})_(accuracy|attribution_in_mask)_(class|group)(_|$)")
    return [prefix for prefix in found if prefix != "train" and not of_cells.match(prefix)]


def split_names(prefixes: Sequence[str]) -> dict[str, str]:
    """Prefix -> what its images are called: `validation`, `test`, and of several evaluation sets their own names."""
    names = {prefix: SPLITS.get(prefix, prefix.removeprefix("eval_")) for prefix in prefixes}
    shared = [name for name in names.values() if list(names.values()).count(name) > 1]
    return {prefix: prefix if name in shared else name for prefix, name in names.items()}


def evaluations(metrics: Mapping[str, Any], prefixes: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Prefix -> the metrics of its evaluation, under their own names."""
    found: dict[str, dict[str, Any]] = {prefix: {} for prefix in prefixes}
    longest_first = sorted(prefixes, key=len, reverse=True)
    for name, value in metrics.items():
        prefix = next((prefix for prefix in longest_first if name.startswith(f"{prefix}_")), None)
        if prefix is not None:
            found[prefix][name.removeprefix(f"{prefix}_")] = value
    return found


def results_of_weights(trainer: Trainer) -> dict[str, dict[str, float]]:
    """Metrics by split (`validation`, `test` …), of evaluations of the weights that the trainer holds now only."""
    history = trainer.state.log_history
    ended, held, step = end_of_training(history), _held(trainer), selection_of(trainer)["step"]
    results: dict[str, dict[str, float]] = {}
    for index, entry in enumerate(history):
        if WEIGHTS in entry:
            of_these = entry[WEIGHTS] == held
        else:  # the log of an earlier version
            of_these = entry["step"] == step or (ended is not None and index > ended)
        if of_these and (found := prefixes(entry)):
            results |= evaluations(entry, [min(found, key=len)])
    names = split_names(list(results))
    return {names[prefix]: metrics for prefix, metrics in results.items()}


def selection_of(trainer: Trainer) -> dict[str, Any]:
    """Which step's weights these are, None where they are of no step, and by which score they were chosen, if so."""
    args, state = trainer.args, trainer.state
    ended, best = end_of_training(state.log_history), None
    if ended is not None and args.load_best_model_at_end and state.best_global_step is not None:
        loaded = Path(state.best_model_checkpoint or "").name
        best = state.best_global_step if loaded == f"checkpoint-{state.best_global_step}" else None
    step = state.global_step if best is None else best
    if ended is not None and (held := _held(trainer)) is not None:
        marked = [(entry["step"], entry[WEIGHTS]) for entry in state.log_history[: ended + 1] if WEIGHTS in entry]
        steps = [of for of, weights in marked if weights == held]
        if step not in steps and (steps or step in dict(marked)):
            step = steps[-1] if steps else None
    if best is None or step != best:
        return {"step": step, "max_steps": state.max_steps, "metric": None}
    return {
        "step": step,
        "max_steps": state.max_steps,
        "metric": args.metric_for_best_model.removeprefix("eval_"),
        "value": state.best_metric,
        "greater": args.greater_is_better,
    }


def told_selection(selection: Mapping[str, Any]) -> str:
    """What `selection_of` gives, in words."""
    if selection["step"] is None:
        return "none: weights that were changed after the last step"
    if selection["step"] == 0:
        return "step 0: nothing was trained"
    if not selection["metric"]:
        return f"step {selection['step']} of {selection['max_steps']}, not selected"
    extreme = "highest" if selection["greater"] else "lowest"
    return (
        f"step {selection['step']} of {selection['max_steps']}, with the {extreme} validation {selection['metric']}, "
        f"{selection['value']:.3f}"
    )


def selecting_split(metric: str | None, results: Mapping[str, Mapping[str, float]]) -> str | None:
    """Which of the splits gave the metric that chose the weights; None where nothing did, or it is not there."""
    if metric is None:
        return None
    if metric in results.get(SPLITS["eval"], {}):
        return SPLITS["eval"]
    names = {split: split.removeprefix("eval_") + "_" for split in results}
    given = (
        split
        for split, name in names.items()
        if metric.startswith(name) and metric.removeprefix(name) in results[split]
    )
    return next(given, None)


def end_of_training(history: Log) -> int | None:
    """Index in a log of what `train()` logs last, before it loads the best checkpoint; None while it runs."""
    return next((i for i in reversed(range(len(history))) if "train_runtime" in history[i]), None)


def _held(trainer: Trainer) -> int | None:
    """The fingerprint of the trainer's weights; None where its log has none to compare it with."""
    known = any(WEIGHTS in entry for entry in trainer.state.log_history)
    return fingerprint(trainer.model) if known else None
