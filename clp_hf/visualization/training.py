"""Training curves of a run and of several, of what a `Trainer` logs."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..hub.history import end_of_training
from .style import HEIGHT, INK, MARKERS, PALETTE, WIDTH, Points, draw_legend, draw_lines, over_epochs, styled

History = Sequence[Mapping[str, float]]
LARGEST = 1e100  # that is drawn; and NaN is not less


def of_training(history: History) -> History:
    """The log as far as training went: without evaluations after it, which are of the checkpoint that was kept."""
    ended = end_of_training(history)
    return history if ended is None else history[: ended + 1]


def logged(histories: Sequence[History], key: str, scale: float = 1.0) -> list[tuple[float, float]]:
    """What was logged under a name, over the epochs.

    Args:
        histories: the `log_history` of one run, or of several that are averaged (seeds).
        key: of the entries.
        scale: factor of the values, such as 100 for percent.

    Returns:
        (epoch, value), by epoch; nothing where no entry has the name. Values that no axis holds are left out.
    """
    values: dict[float, list[float]] = defaultdict(list)
    for history in histories:
        for entry in history:
            if key in entry and abs(entry.get("epoch", LARGEST)) < LARGEST and abs(entry[key]) < LARGEST:
                values[entry["epoch"]].append(scale * entry[key])
    return [(epoch, statistics.mean(found)) for epoch, found in sorted(values.items())]


def logged_each(history: History, prefix: str, titles: Mapping[str, str], scale: float = 1.0) -> dict[str, Points]:
    """`logged` of every name that starts with `prefix`: title -> points, where `titles` has what follows the prefix."""
    found = {title: logged([history], f"{prefix}{rest}", scale) for rest, title in titles.items()}
    return {title: points for title, points in found.items() if points}


@styled
def lines_figure(
    series: Mapping[str, Points], label: str, selected: float | None = None, order: Sequence[str] = ()
) -> Figure:
    """Lines over the epochs of training.

    Args:
        series: name -> (epoch, value).
        label: of the values, with their unit.
        selected: epoch whose checkpoint was kept, which a vertical line marks.
        order: names in the order of their colours, where a picture beside this one has more of them.
    """
    figure = Figure(figsize=(WIDTH, HEIGHT))
    axes = figure.subplots()
    draw_lines(axes, series, order)
    if selected is not None:
        axes.axvline(selected, color=INK, linewidth=0.9, linestyle=":", label="checkpoint kept")
    over_epochs(axes, label)
    draw_legend(axes)
    return figure


@styled
def accuracies_figure(accuracies: Mapping[str, Mapping[str, float]], label: str) -> Figure:
    """Accuracies of several runs, a row for every group or class and a mark for every run.

    Args:
        accuracies: run -> group or class -> accuracy, in percent.
        label: of the accuracies, such as `"test accuracy, %"`.
    """
    names = list(dict.fromkeys(name for found in accuracies.values() for name in found))
    figure = Figure(figsize=(WIDTH, max(HEIGHT * 0.6, 1.1 + 0.3 * len(names))))
    axes = figure.subplots()
    _draw_ranges(axes, accuracies, names)
    for index, (run, found) in enumerate(accuracies.items()):
        rows = [names.index(name) for name in found]
        style = {"color": PALETTE[index % len(PALETTE)], "marker": MARKERS[index % len(MARKERS)]}
        axes.plot(list(found.values()), rows, label=run, linestyle="none", markersize=6, **style)
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel=label, xlim=(-2, 102), ylim=(len(names) - 0.5, -0.5))
    draw_legend(axes)
    return figure


def _draw_ranges(axes: Axes, accuracies: Mapping[str, Mapping[str, float]], names: Sequence[str]) -> None:
    """A thin line from the lowest to the highest of every row: how far runs differ there."""
    for row, name in enumerate(names):
        values = [found[name] for found in accuracies.values() if name in found]
        axes.plot([min(values), max(values)], [row, row], color=INK, linewidth=0.8, alpha=0.4)
