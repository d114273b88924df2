"""Metrics of a classifier over all images, per class and per group, as plain floats for `Trainer`."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from .utils.text import markdown, one_line

# Ends of the names of metrics that are better when lower, of a data set's own name (`eval_far_nll`) as well.
LOWER_IS_BETTER = re.compile(r"(loss|(^|_)(nll|ece|error|error_rate|brier|brier_score|perplexity))$")
OF_CELL = re.compile(r"(^|_)accuracy_(class|group)_")  # and then a name that may be anything, "loss" too


def greater_is_better(metric: str) -> bool:
    """Which way a metric is good: what `metric_for_best_model` selects by."""
    return bool(OF_CELL.search(metric)) or not LOWER_IS_BETTER.search(metric)


def classification_metrics(
    logits,
    labels,
    groups=None,
    *,
    label_names: Sequence[str],
    group_names: Sequence[str] | None = None,
    train_group_proportions: Mapping[str, float] | None = None,
    train_class_counts: Mapping[str, int] | None = None,
    num_bins: int = 15,
) -> dict[str, float]:
    """Accuracy over all images, per class and per group, F1 and calibration, all in [0, 1] except `nll` (nats, >= 0).

    - `accuracy`, `accuracy_class_<name>`, `worst_class_accuracy`, `balanced_accuracy` (mean over classes);
    - with groups: `accuracy_group_<name>`, `worst_group_accuracy` and, given the training proportions,
      `adjusted_accuracy`: group accuracies weighted by the groups' shares of the *training* set (WILDS' `adj_acc_avg`,
      Koh et al. 2021);
    - without groups `worst_group_accuracy` is the worst class, so that a checkpoint can be selected by one name either
      way;
    - given the class sizes of a long-tailed training set, `many_shot_accuracy`, `medium_shot_accuracy` and
      `few_shot_accuracy`: over images of classes with more than 100, 20 to 100 and fewer than 20 training images (Liu
      et al. 2019); no key where there are no such classes, none at all where all classes are of one kind;
    - `macro_precision`, `macro_recall`, `macro_f1` (scikit-learn, `zero_division=0`);
    - `ece`: expected calibration error of the top class over `num_bins` equal-width bins (Guo et al. 2017); `nll`.

    A class or group without samples has no key and no part in means and minima; a warning names it.

    Args:
        logits: (n, C), finite.
        labels: (n,) integers in 0 ... C - 1.
        groups: (n,) integers in 0 ... len(group_names) - 1, or None.
        label_names: C names, each once.
        group_names: needed with `groups`. One that starts with the name of a class and an underscore is taken for a
            (class, attribute) pair, which holds one class.
        train_group_proportions: share of each group in the training set, by group name.
        train_class_counts: number of training images of each class, by class name.

    Raises:
        ValueError: shapes, ranges or names disagree; logits are not finite; groups overlap (a 2-D array, or a group
            of several classes that is called like a pair).
    """
    from sklearn.metrics import precision_recall_fscore_support  # a second to import, needed here only

    logits, labels = np.asarray(logits, dtype=np.float64), np.asarray(labels)
    _check(logits, labels, label_names)
    correct = logits.argmax(1) == labels

    per_class = _accuracies(correct, labels, label_names, "class")
    metrics = {"accuracy": float(correct.mean()), "balanced_accuracy": float(np.mean(list(per_class.values())))}
    metrics["worst_class_accuracy"] = metrics["worst_group_accuracy"] = min(per_class.values())
    if groups is not None:
        groups = np.asarray(groups)
        _check_groups(groups, labels, label_names, group_names)
        per_group = _accuracies(correct, groups, group_names, "group")
        metrics["worst_group_accuracy"] = min(per_group.values())
        if train_group_proportions is not None:
            metrics["adjusted_accuracy"] = _adjusted(per_group, train_group_proportions)
        metrics |= {f"accuracy_group_{name}": value for name, value in per_group.items()}
    if train_class_counts is not None:
        metrics |= _shot_accuracies(correct, labels, label_names, train_class_counts)
    metrics |= {f"accuracy_class_{name}": value for name, value in per_class.items()}

    present = np.unique(labels)
    precision, recall, f1, _ = precision_recall_fscore_support(
        labels, logits.argmax(1), labels=present, average="macro", zero_division=0
    )
    metrics |= {"macro_precision": float(precision), "macro_recall": float(recall), "macro_f1": float(f1)}

    shifted = logits - logits.max(1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    metrics["ece"] = _expected_calibration_error(np.exp(log_probabilities.max(1)), correct, num_bins)
    metrics["nll"] = float(-log_probabilities[np.arange(len(labels)), labels].mean())
    return metrics


class GroupMetrics:
    """`classification_metrics` as the `compute_metrics` of a `Trainer`.

    Takes an `EvalPrediction` whose `predictions` are logits, or a tuple that starts with them, and whose `label_ids`
    are labels or `(labels, groups)`, which a `Trainer` gathers with `label_names=["labels", "group"]`; or lists of
    these, a batch each (`eval_do_concat_batches=False`). Arguments as `classification_metrics`.

    Attributes:
        label_names, group_names: in the order of the indices; no groups, no group names.
    """

    def __init__(
        self, label_names, group_names=None, train_group_proportions=None, train_class_counts=None, num_bins: int = 15
    ):
        self.label_names, self.group_names = label_names, group_names
        self.options = {
            "label_names": label_names,
            "group_names": group_names,
            "train_group_proportions": train_group_proportions,
            "train_class_counts": train_class_counts,
            "num_bins": num_bins,
        }

    @property
    def names(self) -> list[str]:
        """All metrics that an evaluation can give: a class or group without images has none."""
        names = ["accuracy", "balanced_accuracy", "worst_class_accuracy", "worst_group_accuracy", "macro_precision"]
        names += ["macro_recall", "macro_f1", "ece", "nll"]
        if self.options["train_group_proportions"] is not None:
            names.append("adjusted_accuracy")
        if self.options["train_class_counts"] is not None:
            names += ["many_shot_accuracy", "medium_shot_accuracy", "few_shot_accuracy"]
        names += [f"accuracy_group_{name}" for name in self.group_names or []]
        return [*names, *(f"accuracy_class_{name}" for name in self.label_names)]

    def __call__(self, prediction) -> dict[str, float]:
        """The metrics of one evaluation."""
        return classification_metrics(*logits_labels_groups(prediction), **self.options)


def logits_labels_groups(prediction) -> tuple:
    """Logits (n, C), labels (n,) and groups (n,) or None, of what `GroupMetrics` takes."""
    logits, label_ids = _joined(prediction.predictions), _joined(prediction.label_ids)
    logits = logits[0] if isinstance(logits, tuple) else logits
    labels, groups = label_ids if isinstance(label_ids, tuple) else (label_ids, None)
    return logits, labels, groups


def _joined(batches):
    """One array, or a tuple of arrays, of a list of batches of such; what is no list is whole."""
    if not isinstance(batches, list):
        return batches
    if isinstance(batches[0], (tuple, list)):
        return tuple(np.concatenate(part) for part in zip(*batches, strict=True))
    return np.concatenate(batches)


def format_group_table(
    results: Mapping[str, Mapping[str, float]],
    counts: Mapping[str, Mapping[str, int]] | None = None,
    *,
    prefix: str = "",
    title: str = "accuracy, %",
) -> str:
    """A Markdown table of accuracies in percent: a row per group, then worst group, average, adjusted, and so on.

    Where no method has groups, the rows are the classes. Names may hold anything: they are escaped, and cut.

    Args:
        results: method name -> metrics, for example `{"ERM": ..., "CLP": ...}`.
        counts: column title -> number of images per group (class) name, for example `{"train": counts(train)}`.
        prefix: what the metrics' keys start with, such as `"test_"`.
        title: of the table: what is in it, and of which split.
    """
    counts = counts or {}
    by_group = any(name.startswith(f"{prefix}accuracy_group_") for metrics in results.values() for name in metrics)
    key = f"{prefix}accuracy_{'group' if by_group else 'class'}_"
    scored = dict.fromkeys(name for metrics in results.values() for name in metrics if name.startswith(key))
    rows = []
    for name in scored:
        group = name.removeprefix(key)
        sizes = [str(column.get(group, 0)) for column in counts.values()]
        rows.append([_shown(group), *sizes, *_percents(results, name)])
    summary = {
        **({"worst group": "worst_group_accuracy"} if by_group else {}),
        "average": "accuracy",
        "adjusted average": "adjusted_accuracy",
        "balanced (classes)": "balanced_accuracy",
        "worst class": "worst_class_accuracy",
        "many-shot classes (> 100)": "many_shot_accuracy",
        "medium-shot classes": "medium_shot_accuracy",
        "few-shot classes (< 20)": "few_shot_accuracy",
    }
    for measure, name in summary.items():
        if any(prefix + name in metrics for metrics in results.values()):
            totals = [str(sum(column.values())) if name == "accuracy" else "" for column in counts.values()]
            rows.append([measure, *totals, *_percents(results, prefix + name)])
    table = [[title, *map(_shown, counts), *map(_shown, results)], *rows]
    widths = [max(3, *map(len, column)) for column in zip(*table, strict=True)]
    table.insert(1, ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])])
    # Names to the left, numbers to the right.
    padded = [[row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in table]
    return "\n".join("| " + " | ".join(row) + " |" for row in padded)


def _shown(name) -> str:
    return markdown(one_line(name))


def _percents(results, key):
    return [f"{100 * metrics[key]:.1f}" if key in metrics else "–" for metrics in results.values()]


def _accuracies(correct, cells, names, kind) -> dict[str, float]:
    sizes = np.bincount(cells, minlength=len(names))
    if empty := [name for name, size in zip(names, sizes, strict=True) if size == 0]:
        warnings.warn(f"No sample of {kind} {', '.join(map(str, empty))}: left out of the metrics.", stacklevel=3)
    hits = np.bincount(cells, weights=correct, minlength=len(names))
    return {name: float(hit / size) for name, hit, size in zip(names, hits, sizes, strict=True) if size}


def _shot_accuracies(correct, labels, label_names, counts) -> dict[str, float]:
    if missing := [name for name in label_names if name not in counts]:
        raise ValueError(f"train_class_counts lacks the classes {missing}; it has {list(counts)}.")
    sizes = np.array([counts[name] for name in label_names])[labels]
    shots = {"many": sizes > 100, "medium": (sizes >= 20) & (sizes <= 100), "few": sizes < 20}
    if any(found.all() for found in shots.values()):
        return {}
    return {f"{name}_shot_accuracy": float(correct[found].mean()) for name, found in shots.items() if found.any()}


def _adjusted(per_group, proportions) -> float:
    if missing := [name for name in per_group if name not in proportions]:
        raise ValueError(f"train_group_proportions lacks the groups {missing}; it has {list(proportions)}.")
    weights = np.array([proportions[name] for name in per_group], dtype=float)
    if weights.min() < 0 or weights.sum() == 0:
        raise ValueError(f"train_group_proportions must be >= 0 and not all 0, got {dict(proportions)}.")
    return float(weights @ list(per_group.values()) / weights.sum())


def _expected_calibration_error(confidence, correct, num_bins) -> float:
    # Bins (0, 1/B], (1/B, 2/B], ...: |sum of confidence - number correct| per bin, over n.
    bins = np.clip(np.ceil(confidence * num_bins).astype(int) - 1, 0, num_bins - 1)
    gaps = np.bincount(bins, weights=confidence - correct, minlength=num_bins)
    return float(np.abs(gaps).sum() / len(correct))


def _check(logits, labels, label_names) -> None:
    if logits.ndim != 2 or logits.shape != (len(labels), len(label_names)) or labels.ndim != 1 or not len(labels):
        raise ValueError(
            f"Expected logits (n, {len(label_names)}) and labels (n,) with n > 0, "
            f"got {logits.shape} and {labels.shape}."
        )
    if not np.isfinite(logits).all():
        rows = np.flatnonzero(~np.isfinite(logits).all(1))
        raise ValueError(
            f"Logits of {len(rows)} samples are NaN or infinite, first at row {rows[0]}: has training diverged?"
        )
    _check_names(label_names, "label_names")
    _check_range(labels, label_names, "labels")


def _check_names(names, kind) -> None:
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise ValueError(f"{kind} has {twice} more than once: their accuracies would be taken for one another's.")


def _check_groups(groups, labels, label_names, group_names) -> None:
    if group_names is None:
        raise ValueError("group_names is needed with groups.")
    _check_names(group_names, "group_names")
    if groups.ndim != 1:
        raise ValueError(
            f"Groups have shape {groups.shape}: overlapping (multi-hot) groups are not supported. "
            "Give one group per sample, (n,)."
        )
    if len(groups) != len(labels):
        raise ValueError(f"Expected one group per label, got {len(groups)} groups and {len(labels)} labels.")
    _check_range(groups, group_names, "groups")
    for group, name in enumerate(group_names):
        owners = [label for label in label_names if name == label or name.startswith(f"{label}_")]
        held = {label_names[label] for label in np.unique(labels[groups == group])}
        if owners and len(held) > 1:  # of one only: the name may begin with the attribute
            raise ValueError(
                f"Group {name!r} should hold class {max(owners, key=len)!r} only, but holds {sorted(held)}: "
                "groups must not overlap, a group is one (class, attribute) pair."
            )


def _check_range(values, names, kind) -> None:
    if not np.issubdtype(values.dtype, np.integer):
        raise ValueError(f"Expected integer {kind}, got {values.dtype}.")
    if values.min() < 0 or values.max() >= len(names):
        raise ValueError(f"Expected {kind} in 0 ... {len(names) - 1}, got {values.min()} ... {values.max()}.")
