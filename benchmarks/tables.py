"""The table of a comparison, as Markdown, and what stands above it."""

import statistics
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from common import mark_best, mean_and_spread

GROUP_COLUMNS = {
    "test worst group": "test_worst_group_accuracy",
    "test average": "test_accuracy",
    "test adjusted": "test_adjusted_accuracy",
    "validation worst group": "eval_worst_group_accuracy",
}
CLASS_COLUMNS = {
    "test": "test_accuracy",
    "test, > 100 images": "test_many_shot_accuracy",
    "test, 20 to 100": "test_medium_shot_accuracy",
    "test, < 20": "test_few_shot_accuracy",
    "test worst class": "test_worst_class_accuracy",
    "validation": "eval_accuracy",
}


def by_method(records: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The runs of each method, in the order of `records`."""
    return {
        method: [record for record in records if record["method"] == method]
        for method in dict.fromkeys(record["method"] for record in records)
    }


def table(records: Sequence[dict[str, Any]], first: Mapping[str, str] = MappingProxyType({})) -> str:
    """Mean ± standard deviation over seeds of every method, as Markdown; the best and second best of test columns.

    Args:
        records: of runs.
        first: columns before the usual ones, title -> metric; what is called an error is one less it.
    """
    methods = by_method(records)
    has_groups = any(name.startswith("test_accuracy_group_") for name in records[0]["metrics"])
    columns = {
        title: key
        for title, key in {**first, **(GROUP_COLUMNS if has_groups else CLASS_COLUMNS)}.items()
        if all(key in record["metrics"] for record in records)
    }
    seeds = [", ".join(str(record["seed"]) for record in runs) for runs in methods.values()]
    minutes = [statistics.mean(record["cpu_seconds"] for record in runs) / 60 for runs in methods.values()]
    return head_and_rows(
        {
            "method": list(methods),
            "seeds": seeds,
            **{title: cells_of(records, methods, title, key) for title, key in columns.items()},
            "CPU minutes a run": [f"{value:.1f}" for value in minutes],
        }
    )


def cells_of(records: Sequence[dict[str, Any]], methods: Iterable[str], title: str, key: str) -> list[str]:
    """A column: the score of every method over its runs, empty where it has none; the best marked in a test column."""
    runs, is_error = by_method(records), title.endswith("error")
    scores = {
        method: [1 - record["metrics"][key] if is_error else record["metrics"][key] for record in found]
        for method, found in runs.items()
    }
    texts = {method: mean_and_spread(found) for method, found in scores.items()}
    if title.startswith("test"):
        means = [statistics.mean(found) for found in scores.values()]
        marked = mark_best([-mean for mean in means] if is_error else means, list(texts.values()))
        texts = dict(zip(texts, marked, strict=True))
    return [texts.get(method, "") for method in methods]


def head_and_rows(columns: Mapping[str, Sequence[str]]) -> str:
    """A Markdown table of columns; numbers to the right."""
    text = [title for title in columns if title in ("method", "seeds")]
    lines = [
        f"| {' | '.join(columns)} |",
        "|" + "---|" * len(text) + "---:|" * (len(columns) - len(text)),
        *(f"| {' | '.join(row)} |" for row in zip(*columns.values(), strict=True)),
    ]
    return "\n".join(lines)


# Arguments of a recipe that say how it is run, and not on what.
NOT_OF_THE_SCENARIO = ("method", "preset", "compare", "verbose", "overwrite_output_dir")


def caption(comparison: Any, records: Sequence[dict[str, Any]]) -> str:
    """What was compared, the budget, and what selects the checkpoint that is tested."""
    recipe, data, _, training = comparison.arguments
    details = [
        f"{name} {without_folder(value)}"
        for name, value in vars(recipe).items()
        if name not in NOT_OF_THE_SCENARIO and value is not None
    ]
    sizes = sorted({sum(record["class_counts"].values()) for record in records if "class_counts" in record})
    parts = [
        f"Scenario {comparison.benchmark.scenario}" + (f" ({', '.join(details)})" if details else ""),
        f"data {without_folder(data.dataset_name)}"
        + (f", {' or '.join(f'{size:,}' for size in sizes)} training images" if sizes else ""),
        f"{comparison.model}, {records[0]['parameters']:,} parameters",
    ]
    length = f"{training.max_steps} steps" if training.max_steps > 0 else f"{training.num_train_epochs:g} epochs"
    budget = (
        f"{length} of batches of {training.per_device_train_batch_size}, {training.optim.value} "
        f"({training.optim_args}), learning rate {training.learning_rate:g}, weight decay {training.weight_decay:g}, "
        f"meta_every {training.meta_every}"
    )
    commits = sorted({record["commit"] for record in records})
    devices = sorted({record.get("device", "cpu") for record in records})
    tuned = (
        f"Of each method the settings with the best validation score on seed {comparison.benchmark.seeds[0]}, out of "
        f"{_range(Counter(method.split('+')[0] for method in comparison.methods).values())}. "
        if comparison.benchmark.tune
        else ""
    )
    kept = f"checkpoint with the best validation {training.metric_for_best_model}"
    if not training.load_best_model_at_end:
        kept = "last step, which nothing selects,"
    return (
        f"{'; '.join(parts)}. Every run: {budget}. {tuned}Of each run the "
        f"{kept} is tested, once. Accuracy in percent, "
        f"mean ± standard deviation over seeds; **best** and <u>second best</u> mean. Commits {', '.join(commits)}."
        + (f" On {', '.join(devices)}." if devices != ["cpu"] else "")
        + left_out(comparison.left_out)
    )


def told(reasons: Mapping[str, str]) -> str:
    """Methods, each with the reason why it is left out."""
    return "; ".join(f"{method} ({reason})" for method, reason in reasons.items())


def left_out(reasons: Mapping[str, str]) -> str:
    """A sentence on the rows that frozen features are not enough for, after a space; nothing where there are none."""
    return f" Left out, on frozen features: {told(reasons)}." if reasons else ""


def _range(numbers: Collection[int]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low}" if low == high else f"{low} to {high}"


def without_folder(value: Any) -> Any:
    """Results name no folder of the machine on which they were made."""
    return Path(value).name if isinstance(value, str) and "/" in value else value
