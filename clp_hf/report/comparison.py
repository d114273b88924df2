"""What a report says of several rows on the same data: results side by side, differences, settings that differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..hub.record import RunRecord
from ..utils.text import one_line_each
from ..visualization.pictures import Picture, alt_text
from ..visualization.training import accuracies_figure, lines_figure, logged
from .bootstrap import Interval, differences
from .methods import ERM, method_of, selected
from .rows import NONE, SEEDS, Row, measure_keys
from .run import told_data
from .table import Cell, Table

MOST_ROWS = 20  # of a picture of accuracies
SUMMARY = {
    "worst group": "worst_group_accuracy",
    "average": "accuracy",
    "adjusted average": "adjusted_accuracy",
    "balanced over classes": "balanced_accuracy",
    "worst class": "worst_class_accuracy",
    "classes of > 100 images": "many_shot_accuracy",
    "classes of 20 to 100": "medium_shot_accuracy",
    "classes of < 20": "few_shot_accuracy",
    "macro F1": "macro_f1",
    "F1 of the worst group": "worst_group_f1",
    "F1 of the worst class": "worst_class_f1",
    "AUROC": "auroc",
    "calibration error": "ece",
    "Grad-CAM in the mask": "attribution_in_mask",
    "mask, share of the image": "mask_area",
}
COMPARED = ("accuracy", "adjusted_accuracy", "worst_group_f1", "worst_class_f1", "auroc", "attribution_in_mask")


@dataclass
class Comparison:
    """Of the rows on one data set.

    Attributes:
        data: it in words.
        kept: (row, which weights it kept, and by what).
        tables: results, cells, differences, settings; without rows they are left out.
        notes: which rows are not paired, and why, or which of their seeds alone, a sentence each.
        pictures: of all rows.
    """

    data: str
    kept: list[tuple[str, str]]
    tables: list[Table]
    notes: list[str] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)


def compare(rows: Sequence[Row]) -> Comparison:
    """Compare two rows or more, which are on the same data."""
    split = "test" if all("test" in row.splits() for row in rows) else "validation"
    gains, notes = _gains(rows, split)
    return Comparison(
        told_data(rows[0].first),
        [(row.title, "; ".join(dict.fromkeys(selected(run.record) for run in row.runs))) for row in rows],
        [_results(rows), *_cells(rows, split), *gains, _settings(rows)],
        notes,
        _pictures(rows, split),
    )


def cells_of(row: Row, split: str) -> dict[str, str]:
    """Name -> metric, of every group (class without groups) that the split has images of."""
    record = row.first.record
    kind, names = ("group", record.group_names) if record.group_names else ("class", record.label_names)
    return {name: f"accuracy_{kind}_{name}" for name in names if row.values(split, f"accuracy_{kind}_{name}")}


def worst_of(record: RunRecord) -> str:
    """The metric of the worst group, of the worst class without groups."""
    return "worst_group_accuracy" if record.group_names else "worst_class_accuracy"


def cell(row: Row, split: str, key: str, best: bool = False) -> Cell:
    """A metric with its interval below."""
    return Cell(row.text(split, key), "best" if best else "", interval_text(row.interval(split, key)))


def interval_text(interval: Interval | None, signed: bool = False) -> str:
    """In percent; nothing where there is none."""
    form = "+.1f" if signed else ".1f"
    return "" if interval is None else _minus(f"{100 * interval.low:{form}} to {100 * interval.high:{form}}")


def _minus(text: str) -> str:
    return text.replace("-", "−")


# ---- side by side ----------------------------------------------------------------------------------------------------


def _results(rows: Sequence[Row]) -> Table:
    worst = worst_of(rows[0].first.record)
    compared = {"test": (worst, *COMPARED), "validation": (worst, "accuracy")}
    keys = {
        f"{split} {title}": (split, key)
        for split, names in compared.items()
        for title, key in SUMMARY.items()
        if key in names and any(row.values(split, key) for row in rows)
    }
    table = Table("Results of all runs, %", ["run", *keys, "training, s"])
    best = [_best([row.mean(split, key) for row in rows]) for split, key in keys.values()]
    for number, row in enumerate(rows):
        cells = [cell(row, *at, marks[number]) for at, marks in zip(keys.values(), best, strict=True)]
        runtimes = [run.runtime for run in row.runs if run.runtime is not None]
        seconds = f"{sum(runtimes) / len(runtimes):,.0f}" if runtimes else NONE
        table.add_cells(f"{row.title} ({method_of(row.first.record)})", [*cells, Cell(seconds)])
    return table


def _cells(rows: Sequence[Row], split: str) -> list[Table]:
    found = [cells_of(row, split) for row in rows]
    keys = {name: key for cells in found for name, key in cells.items()}
    if not keys:
        return []
    records = [run.record for row in rows for run in row.runs]
    images = records[0].images.get("train images", {})
    same = bool(images) and all(record.images.get("train images") == images for record in records)
    kind = "group" if records[0].group_names else "class"
    table = Table(f"{split.capitalize()} accuracy by {kind}, %", [kind, *(["train images"] if same else [])])
    table.head += [row.title for row in rows]
    for name, key in keys.items():
        best = _best([row.mean(split, key) for row in rows])
        cells = [cell(row, split, key, mark) for row, mark in zip(rows, best, strict=True)]
        table.add_cells(name, [*([Cell(f"{images.get(name, 0):,}")] if same else []), *cells])
    return [table]


def _best(values: Sequence[float | None]) -> list[bool]:
    """Which are the highest as they are printed; none where all are the same."""
    shown = [None if value is None else round(100 * value, 1) for value in values]
    known = [value for value in shown if value is not None]
    return [len(set(known)) > 1 and value == max(known) for value in shown]


# ---- differences -----------------------------------------------------------------------------------------------------


def _gains(rows: Sequence[Row], split: str) -> tuple[list[Table], list[str]]:
    """What every row has over the plain one (the first where there is none), on the same images."""
    base = next((row for row in rows if method_of(row.first.record).startswith(ERM)), rows[0])
    columns: dict[str, dict[str, tuple[float, Interval]]] = {}
    notes = []
    for row in rows:
        if row is base:
            continue
        mine, others, reason = _paired(row, base, split)
        if reason:
            notes.append(f"{row.title} is not paired with {base.title}: {reason}.")
            continue
        if mine.seeds != others.seeds or len(mine.runs) < max(len(row.runs), len(base.runs)):
            pairs = ", ".join(f"{one} with {other}" for one, other in zip(mine.seeds, others.seeds, strict=True))
            notes.append(f"Of {row.title} and {base.title} these seeds are paired: {pairs}.")
        scores, other_scores = mine.scores(split), others.scores(split)
        keys = measure_keys(row.first, [*scores, *other_scores])
        found = zip(keys, differences(scores, other_scores), strict=True)
        columns[row.title] = {key: (mine.mean(split, key) - others.mean(split, key), of) for key, of in found}
    if not columns:
        return [], notes
    kind = "group" if base.first.record.group_names else "class"
    caption = f"Differences from {base.title} on the same {split} images, points"
    table = Table(caption, [kind, *columns])
    titles = {key: name for name, key in cells_of(base, split).items()}
    titles |= {worst_of(base.first.record): f"worst {kind}", "accuracy": "average"}
    for key, title in titles.items():
        table.add_cells(title, [_gain(column.get(key)) for column in columns.values()])
    return [table], notes


def _gain(found: tuple[float, Interval] | None) -> Cell:
    if found is None:
        return Cell(NONE)
    difference, interval = found
    mark = "0 is outside the interval" if interval.without_zero else ""
    return Cell(_minus(f"{100 * difference:+.1f}"), mark, interval_text(interval, signed=True))


def _paired(row: Row, base: Row, split: str) -> tuple[Row, Row, str]:
    """The runs of both with a seed in common (in order where there is none), and why they cannot be paired, if so."""
    common = [seed for seed in row.seeds if seed in base.seeds]
    if common:
        mine, others = ([of.runs[of.seeds.index(seed)] for seed in common] for of in (row, base))
    else:
        number = min(len(row.runs), len(base.runs))
        mine, others = row.runs[:number], base.runs[:number]
    mine, others = Row(row.name, mine), Row(base.name, others)
    for of in (mine, others):
        if of.scores(split) is None:
            return mine, others, f"{of.name} has no predictions of the {split} images"
    for one, other in zip(mine.runs, others.runs, strict=True):
        if one.scores.images != other.scores.images:
            shared = len({*one.predictions.ids} & {*other.predictions.ids})
            counted = f"{shared:,} of {len(one.predictions):,} and {len(other.predictions):,} images are the same"
            same = shared == len(one.predictions) == len(other.predictions)
            reason = "they have other labels or groups for the same images" if same else counted
            return mine, others, f"{one.name} and {other.name} were not evaluated alike: {reason}"
    return mine, others, ""


# ---- settings --------------------------------------------------------------------------------------------------------


def _settings(rows: Sequence[Row]) -> Table:
    """Settings that are not the same for all rows that have them; of runs that differ by the seed, the first's."""
    table = Table("Settings that differ", ["setting", *(row.title for row in rows)], numbers=False)
    for part in rows[0].first.record.settings:
        values = [row.first.record.settings[part] for row in rows]
        for name in dict.fromkeys(name for found in values for name in found):
            if name in SEEDS and any(len(row.runs) > 1 for row in rows):
                continue
            texts = [_setting(part, found, name) for found in values]
            if len(set(texts) - {None}) > 1:
                table.add(name, [text or NONE for text in texts])
    return table


def _setting(part: str, values: Mapping[str, Any], name: str) -> str | None:
    """As it is told; None for one that the run's method does not have (HSFM has no settings of a `Trainer`)."""
    if name in values:
        return plain(values[name])
    if part == "method" or not values:
        return None
    return "default" if part == "training" else NONE  # defaults of a `Trainer` are not recorded


def plain(value: Any) -> str:
    """A setting in words."""
    if value is None or value == [] or value == {}:
        return NONE
    if isinstance(value, dict):
        return ", ".join(f"{name} = {plain(item)}" for name, item in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


# ---- pictures --------------------------------------------------------------------------------------------------------


def _pictures(rows: Sequence[Row], split: str) -> list[Picture]:
    pictures = []
    of_seeds = ", of several seeds their mean" if any(len(row.runs) > 1 for row in rows) else ""
    cells = {}
    for row in rows:
        found = cells_of(row, split)
        means = (100 * row.mean(split, key) for key in found.values())
        cells[row.title] = dict(zip(one_line_each(found), means, strict=True))
    kind = "group" if rows[0].first.record.group_names else "class"
    if any(cells.values()) and max(map(len, cells.values())) <= MOST_ROWS:
        title = f"{split.capitalize()} accuracy by {kind}"
        told = "; ".join(
            f"{run}: {', '.join(f'{n} {v:.0f} %' for n, v in found.items())}" for run, found in cells.items()
        )
        caption = f"A mark for every run{of_seeds}; the line spans their range."
        figure = accuracies_figure({run: found for run, found in cells.items() if found}, f"{split} accuracy, %")
        pictures.append(Picture("accuracies", title, caption, f"{title}. {told}.", figure))
    for key, title, label in (
        ("eval_worst_group_accuracy", f"Validation accuracy of the worst {kind}", f"worst {kind}, %"),
        ("eval_accuracy", "Average validation accuracy", "average, %"),
    ):
        series = {}
        for row in rows:
            points = logged([run.history for run in row.runs], key, 100)
            if len(points) > 1:
                series[row.title] = points
        if series:
            caption = f"{title} while training went on{of_seeds}."
            figure = lines_figure(series, label, order=[row.title for row in rows])
            pictures.append(Picture(key, title, caption, alt_text(title, series), figure))
    return pictures
