"""All pictures of one run that its log and its network give, for its model card and for reports alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from matplotlib.figure import Figure

from ..perturbation import META_NETWORKS, MetaNetwork
from ..utils.text import one_line_each
from .perturbations import LOSS_RAISED, loss_raised_figure, partial_dependence, partial_dependence_figure
from .style import MOST_NAMED, Points
from .training import History, lines_figure, logged, logged_each, of_training

CURVES = ("loss", "accuracy")  # names of the pictures of training itself; the others are of the perturbations
GRAD_CAM_CAPTION = (
    "Grad-CAM of the predicted class on test images, one of every group or class (on validation images where there is "
    "no test split). Bright regions speak for the prediction; the white outline is the causal mask."
)


@dataclass
class Picture:
    """A figure, and what is written about it.

    Attributes:
        name: of its file, without suffix.
        title: what it shows.
        caption: how to read it.
        alt: the same for those who do not see it, with the last values.
        figure: as a page has it.
        narrow: draws the same for a narrow screen, where that is another.
    """

    name: str
    title: str
    caption: str
    alt: str
    figure: Figure
    narrow: Callable[[], Figure] | None = None


def run_pictures(
    history: History,
    label_names: Sequence[str],
    group_names: Sequence[str] | None = None,
    network: MetaNetwork | None = None,
    selected_step: int | None = None,
) -> list[Picture]:
    """What there is to see of a run; a picture of which nothing was logged is left out.

    Args:
        history: the trainer's `log_history`.
        label_names, group_names: in the order of their indices.
        network: Ω of the weights that were kept.
        selected_step: whose checkpoint was kept, where one was selected.
    """
    history = of_training(history)
    epochs = {entry["step"]: entry["epoch"] for entry in history if {"step", "epoch"} <= set(entry)}
    selected = epochs.get(selected_step)
    return [
        *_loss(history, selected),
        *_accuracy(history, label_names, group_names, selected),
        *_perturbations(history, label_names, group_names),
        *([_response(network, label_names)] if network is not None and network.recent is not None else []),
    ]


def _loss(history: History, selected: float | None) -> Iterator[Picture]:
    if series := logged_each(history, "", {"hard_loss": "hard set"}):
        caption = "Of the hardest validation images, by the head that the edited features train."
    else:
        series = logged_each(history, "", {"loss": "training", "eval_loss": "validation"})
        caption = "Of training, with δ where there is one; of validation images without it, at every evaluation."
    if series:
        yield _lines("loss", "Loss", caption, series, "loss, nats", selected)


def _accuracy(history: History, label_names, group_names, selected: float | None) -> Iterator[Picture]:
    kind, keys = ("group", group_names) if group_names else ("class", label_names)
    names = one_line_each(keys)
    cells = {f"accuracy_{kind}_{key}": name for key, name in zip(keys, names, strict=True)}
    cells = cells if len(names) < MOST_NAMED else {}
    worst = {f"worst_{kind}_accuracy": f"worst {kind}"} if not cells else {}
    caption = f"On the validation images at every evaluation, of {'each' if cells else 'the worst'} {kind} and of all."
    series = logged_each(history, "eval_", {**cells, **worst, "accuracy": "average"}, 100)
    if score := logged([history], "score", 100):  # of HSFM, which is no accuracy where the loss of the hard set selects
        series = {"worst": score} if min(value for _, value in score) >= 0 else {}
        series |= logged_each(history, "", {"average": "average"}, 100)
        caption = "On the validation images that select the epoch, of the worst group (or class) and of all."
    if series:
        yield _lines("accuracy", "Validation accuracy", caption, series, "validation accuracy, %", selected, names)


def _perturbations(history, label_names, group_names) -> Iterator[Picture]:
    for kind, keys in (("group", group_names), ("class", label_names)):
        names = one_line_each(keys or [])
        titles = {f"{index}": name for index, name in enumerate(names)}
        for told in {network.NAME: network for network in reversed(META_NETWORKS.values())}.values():
            if series := logged_each(history, f"{told.NAME}_{kind}_", titles):
                title = told.TITLE.format(kind)
                yield _lines(f"{told.NAME}_by_{kind}", title, told.CAPTION, series, told.LEVEL, order=names)
        if series := logged_each(history, f"loss_raised_{kind}_", titles, 100):
            caption = "Share of the training samples whose loss the network raises; it lowers that of the others."
            yield _lines(f"loss_raised_by_{kind}", f"Loss raised, by {kind}", caption, series, LOSS_RAISED, order=names)
    if shares := logged_each(history, "loss_raised_", {"clean": "clean", "noisy": "noisy"}, 100):
        caption = (
            "Share of the training samples whose loss the network raises, of clean and of noisy labels. It resists the "
            "noise where the clean line is the higher one (CLP, Figure 5)."
        )
        title = "Loss raised, clean against noisy labels"
        alt = alt_text(title, shares)
        yield Picture("loss_raised_by_noise", title, caption, alt, loss_raised_figure({"": shares}))


def _response(network: MetaNetwork, label_names: Sequence[str]) -> Picture:
    caption = (
        "Mean response when one characteristic takes a value and the others stay as they were, over the last "
        f"{len(network.recent[1])} training samples (partial dependence), from the 5 % to the 95 % quantile of each. "
        "Characteristics depend on each other, so far ends are an extrapolation."
    )
    ranges = {
        name: f"{response.nanmean(1).min():.2f} to {response.nanmean(1).max():.2f}"
        for name, (_, response) in partial_dependence(network).items()
    }
    alt = f"Response of the network to each characteristic. Range of the mean over the classes: {_listed(ranges)}."
    draw = partial(partial_dependence_figure, network, one_line_each(label_names))
    return Picture("response", "What the network answers to", caption, alt, draw(), partial(draw, columns=2))


def _lines(name, title, caption, series: Mapping[str, Points], label, selected=None, order=()) -> Picture:
    if len(series) > MOST_NAMED:
        caption += f" Named are the three highest and the three lowest of {len(series)}."
    return Picture(name, title, caption, alt_text(title, series), lines_figure(series, label, selected, order))


def alt_text(title: str, series: Mapping[str, Points]) -> str:
    """Lines over the epochs, for those who do not see them."""
    last = {name: f"{points[-1][1]:.3g}" for name, points in series.items()}
    return f"{title} over the epochs. At the end: {_listed(last)}."


def _listed(values: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
