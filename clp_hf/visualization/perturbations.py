"""What the perturbations do: how large they are, whose loss they raise, and what the network answers to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ..perturbation.base import MetaNetwork
from ..perturbation.characteristics import KNOWN_CHARACTERISTICS, evidence_margins
from .style import LINES, MARKERS, MOST_NAMED, PALETTE, WIDTH, Points, draw_legend, draw_lines, over_epochs, styled

LOSS_RAISED = "samples whose loss is raised, %"
PANEL_HEIGHT = 1.65  # inches


def draw_loss_raised(axes: Axes, shares: Mapping[str, Mapping[str, Points]]) -> None:
    """The share of samples whose training loss δ raises, of clean and of noisy labels (CLP, Figure 5).

    Args:
        axes: to draw into.
        shares: run or method -> `"clean"` and `"noisy"` -> (epoch, percent).
    """
    for index, (run, kinds) in enumerate(shares.items()):
        for kind, points in kinds.items():
            dash = ("clean", "noisy").index(kind)
            colour = PALETTE[(index if len(shares) > 1 else dash) % len(PALETTE)]
            style = {"color": colour, "linestyle": LINES[dash], "marker": MARKERS[dash]}
            axes.plot(*zip(*points, strict=True), label=f"{run}, {kind} labels".removeprefix(", "), **style)
    over_epochs(axes, LOSS_RAISED)
    axes.set_ylim(-2, 102)


@styled
def loss_raised_figure(shares: Mapping[str, Mapping[str, Points]]) -> Figure:
    """`draw_loss_raised` in a figure of its own."""
    figure = Figure(figsize=(WIDTH, 3.2))
    axes = figure.subplots()
    draw_loss_raised(axes, shares)
    draw_legend(axes)
    return figure


@torch.no_grad()
def partial_dependence(network: MetaNetwork, points: int = 25) -> dict[str, tuple[Tensor, Tensor]]:
    """What Ω answers on average when one characteristic takes a value and all others stay as they were.

    This is the partial dependence of Friedman (2001, "Greedy function approximation", section 8.2), over
    `network.recent`, of `network.level`: δ of the own class over the mean of the others, or the sample weight.
    Characteristics depend on each other (a large loss goes with a small margin), so values far from a sample's own are
    an extrapolation.

    Args:
        network: trained, with `recent`.
        points: of every curve.

    Returns:
        Characteristic -> its values (points,), from the 5 % to the 95 % quantile, and the responses (points, C), the
        mean over the samples of each class, NaN for a class without any. Characteristics that are the same for all
        samples are left out.

    Raises:
        ValueError: the network has seen no samples.
    """
    if network.recent is None:
        raise ValueError(
            "The network has no recent samples to draw its response over: they are kept while it is trained, and lie "
            "beside its weights as characteristics.safetensors."
        )
    characteristics, labels = network.recent
    responses = {}
    for column, name in enumerate(network.characteristics):
        low, high = characteristics[:, column].quantile(characteristics.new_tensor([0.05, 0.95])).tolist()
        if high - low < 1e-6 * max(1.0, abs(high)):
            continue
        values = torch.linspace(low, high, points).to(characteristics)
        varied = characteristics.repeat(points, 1)
        varied[:, column] = values.repeat_interleave(len(labels))
        level = _level(network, varied, labels.repeat(points)).view(points, -1)
        classes = range(int(labels.max()) + 1)
        responses[name] = values.cpu(), torch.stack([level[:, labels == label].mean(1) for label in classes], 1).cpu()
    return responses


def _level(network: MetaNetwork, characteristics: Tensor, labels: Tensor) -> Tensor:
    """(n,). It depends on u_z by its own margin alone, which is a characteristic: any u_z with that margin will do."""
    u_z = None
    if margins := evidence_margins(network.characteristics):
        columns = [network.characteristics.index(name) for name in margins]
        own = torch.nn.functional.one_hot(labels, network.num_labels)
        u_z = characteristics[:, columns, None] * (own - 1 / network.num_labels)[:, None]
    return network.level(network(characteristics, labels, u_z), labels)


@styled
def partial_dependence_figure(network: MetaNetwork, label_names: Sequence[str], columns: int = 4) -> Figure:
    """The response of Ω to each characteristic, a panel for every one and a line for every class.

    Of more than eight classes, one line: the mean over all.

    Args:
        network: trained, with `recent`.
        label_names: of the classes.
        columns: panels in a row: 4 for a page, 2 for a telephone.

    Raises:
        ValueError: the network has seen no samples.
    """
    responses = partial_dependence(network)
    columns = min(columns, max(1, len(responses)))
    rows = max(1, -(-len(responses) // columns))
    width = WIDTH if columns <= 2 else WIDTH / 2 * columns
    figure = Figure(figsize=(width, 0.5 + PANEL_HEIGHT * rows if rows > 1 else 2.6))
    axes = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for panel in axes.flat[len(responses) :]:
        panel.set_axis_off()
    for panel, (name, (values, response)) in zip(axes.flat, responses.items(), strict=False):
        draw_lines(panel, _curves(values, response, label_names))
        for line in panel.lines:
            line.set_marker("")
        panel.set_xlabel(KNOWN_CHARACTERISTICS[name].axis, fontsize=8)
        panel.locator_params(axis="x", nbins=4)
    figure.supylabel(network.LEVEL, fontsize=9)
    draw_legend(axes.flat[0])
    return figure


def _curves(values: Tensor, response: Tensor, label_names: Sequence[str]) -> dict[str, Points]:
    if len(label_names) > MOST_NAMED:
        response, label_names = response.nanmean(1, keepdim=True), ["mean over the classes"]
    curves = zip(label_names, response.T.tolist(), strict=False)
    return {name: list(zip(values.tolist(), curve, strict=True)) for name, curve in curves if curve[0] == curve[0]}
