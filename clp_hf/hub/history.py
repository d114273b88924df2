"""What a trainer's log tells of the weights that it holds now."""

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import (
    Trainer,
)

SPLITS = {"eval": "validation"}


def results_of_weights(trainer: Trainer) -> dict[str, dict[str, float]]:
    """Metrics by split (`validation`, `test` …), of evaluations of the weights that the trainer holds now only."""
    history, step = trainer.state.log_history, selection_of(trainer)["step"]
    ended = end_of_training(history)
    results: dict[str, dict[str, float]] = {}
    for index, entry in enumerate(history):
        runtime = next((name for name in entry if name.endswith("_runtime") and name != "train_runtime"), None)
        if runtime and (entry["step"] == step or (ended is not None and index > ended)):
            prefix = runtime.removesuffix("runtime")
            metrics = {name.removeprefix(prefix): value for name, value in entry.items() if name.startswith(prefix)}
            results[SPLITS.get(prefix[:-1], prefix[:-1])] = metrics
    return results


def selection_of(trainer: Trainer) -> dict[str, Any]:
    """Which step's weights these are, and by which score they were chosen, if they were."""
    args, state = trainer.args, trainer.state
    if end_of_training(state.log_history) is None or not args.load_best_model_at_end or state.best_global_step is None:
        return {"step": state.global_step, "max_steps": state.max_steps, "metric": None}
    return {
        "step": state.best_global_step,
        "max_steps": state.max_steps,
        "metric": args.metric_for_best_model.removeprefix("eval_"),
        "value": state.best_metric,
        "greater": args.greater_is_better,
    }


def end_of_training(history: Sequence[Mapping[str, float]]) -> int | None:
    """Index in a log of what `train()` logs last, before it loads the best checkpoint; None while it runs."""
    return next((i for i in reversed(range(len(history))) if "train_runtime" in history[i]), None)
