"""How all pictures of clp_hf look: told apart without colour vision, and on light and dark pages alike."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence

from ..utils.extras import needed_by

with needed_by("A picture"):
    from matplotlib import rc_context
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

Points = Sequence[tuple[float, float]]

# Okabe and Ito's colours, the light ones darkened: each has a contrast of 3 : 1 or more with white and with near-black.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#c0679b", "#b07a00", "#2e93d1", "#7d7d7d")
MARKERS, LINES = "osD^vP", ("-", "--", "-.", ":")
INK, DARK_INK = "#1f2328", "#e6e6e3"
MOST_NAMED = 8  # series in one picture; of more, the extremes are named

WIDTH, HEIGHT = 4.6, 3.2  # inches: legible in a column of a page, and on a telephone
RC = {
    "axes.axisbelow": True,
    "axes.edgecolor": INK,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 9,
    "axes.titlecolor": INK,
    "figure.constrained_layout.use": True,
    "font.size": 9,
    "grid.alpha": 0.15,
    "grid.color": INK,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 4,
    "svg.fonttype": "path",
    "svg.hashsalt": "clp_hf",  # the same picture is the same file
    "text.color": INK,
    "text.parse_math": False,  # a name may hold a $
    "xtick.color": INK,
    "xtick.labelsize": 8,
    "ytick.color": INK,
    "ytick.labelsize": 8,
}

styled = rc_context(RC)  # a decorator of functions that draw


def draw_lines(axes: Axes, series: Mapping[str, Points], order: Sequence[str] = ()) -> None:
    """Lines through points (x, y), each with a colour, marker and dash of its own.

    Of more than eight only the three that end highest and the three that end lowest are named, over the others in grey.
    The styles are those of the names in `order`, so that a name looks the same in pictures that lack another one.
    """
    named, order = list(series), [*order, *series]
    if len(series) > MOST_NAMED:
        ordered = sorted(series, key=lambda name: series[name][-1][1], reverse=True)
        named = order = [*ordered[:3], *ordered[-3:]]
        for name, points in series.items():
            if name not in named:
                axes.plot(*zip(*points, strict=True), color=PALETTE[-1], linewidth=0.6, alpha=0.6)
    for name in named:
        label = f" {name}" if name.startswith("_") else name  # matplotlib leaves such names out of legends
        axes.plot(*zip(*series[name], strict=True), label=label, **line_style(order.index(name)))


def line_style(index: int) -> dict[str, str]:
    """Colour, marker and dash of the line of this number."""
    return {
        "color": PALETTE[index % len(PALETTE)],
        "marker": MARKERS[index % len(MARKERS)],
        "linestyle": LINES[index % len(LINES)],
    }


def draw_legend(axes: Axes) -> None:
    """The names of the lines, above the axes, in columns as wide as they need."""
    handles, labels = axes.get_legend_handles_labels()
    if labels:
        columns = 1 if max(map(len, labels)) > 24 else 2
        axes.figure.legend(handles, labels, loc="outside upper left", ncols=columns, handlelength=3.2)


def over_epochs(axes: Axes, label: str) -> None:
    """Axes of something that changes while training goes on."""
    axes.set(xlabel="epoch", ylabel=label)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
    axes.margins(x=0.02)


def to_svg(figure: Figure) -> str:
    """A figure as a stand-alone SVG that is transparent, and whose ink is light where the page is dark."""
    buffer = io.StringIO()
    with rc_context(RC):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "var(--ink)")
    theme = f":root{{--ink:{INK}}}@media (prefers-color-scheme:dark){{:root{{--ink:{DARK_INK}}}}}"
    return re.sub(r"(<svg[^>]*>)", rf"\1<style>{theme}</style>", svg, count=1)
