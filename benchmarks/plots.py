"""The style that the pictures of all benchmarks share."""

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("agg")
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# The same thing has the same colour in every picture.
OURS, CORE, OTHER, REFERENCE = "#2563eb", "#ea7317", "#0f9d8a", "#64748b"
HEIGHT, WIDTH, DPI = 3.9, 4.6, 110

STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#e2e8f0",
    "lines.linewidth": 2,
    "lines.markersize": 5,
    "legend.frameon": False,
    "savefig.dpi": DPI,
}
pyplot.rcParams.update(STYLE)
PERCENTILES = (5, 25, 50, 75, 95)


def plots(title: str, conditions: str, names: Sequence[str] = ("",)) -> tuple[Figure, list[Axes]]:
    """A plot for each name side by side, under what is compared and the conditions of the measurement."""
    width = max(1.4, len(names)) * WIDTH
    figure, axes = pyplot.subplots(1, len(names), figsize=(width, HEIGHT), squeeze=False)
    figure.text(0.01, 1 - 0.2 / HEIGHT, title, va="center", fontsize=12, fontweight="bold")
    figure.text(0.01, 1 - 0.42 / HEIGHT, conditions, va="center", color="#475569")
    figure.set_layout_engine("constrained", rect=(0, 0, 1, 1 - 0.58 / HEIGHT))
    for axis, name in zip(axes[0], names, strict=True):
        axis.set_title(name)
    return figure, list(axes[0])


def lines(
    axis: Axes, x: Sequence[float], values: dict[str, Sequence[float]], colours: dict[str, str]
) -> None:
    """A line with a mark for each measured value, from zero up."""
    for name, y in values.items():
        axis.plot(x, y, marker="o", color=colours[name], label=name)
    axis.set_xticks(list(x))
    axis.set_ylim(0, 1.12 * max(max(y) for y in values.values()))
    axis.margins(x=0.12)
    axis.legend(loc="upper left")


def write_ratios(
    axis: Axes, x: Sequence[float], y: Sequence[float], ratios: Sequence[float], *, on_the_left: bool = False
) -> None:
    """Writes a ratio above each point, or to the left above it, where a rising line leaves room."""
    shift, align = ((-5, 3), "right") if on_the_left else ((0, 7), "center")
    for place, value, ratio in zip(x, y, ratios, strict=True):
        axis.annotate(
            f"{ratio:.1f} x",
            (place, value),
            xytext=shift,
            textcoords="offset points",
            ha=align,
            fontweight="bold",
        )


def percentiles(values: Sequence[float]) -> list[float]:
    """The values at `PERCENTILES`."""
    return [round(float(value), 4) for value in np.percentile(values, PERCENTILES)]


def horizontal_boxes(axis: Axes, rows: dict[str, list[float]], colours: Sequence[str], unit: str) -> None:
    """A box for each row of `PERCENTILES`, the first row on top, with its median in words above it."""
    names = ("whislo", "q1", "med", "q3", "whishi")
    stats = [dict(zip(names, values, strict=True)) for values in rows.values()]
    places = list(range(len(rows)))[::-1]
    drawn = axis.bxp(
        stats, places, vert=False, widths=0.4, showfliers=False, patch_artist=True, medianprops={"color": "k"}
    )
    for box, colour in zip(drawn["boxes"], colours, strict=True):
        box.set(facecolor=colour, alpha=0.6)
    for place, (_, _, median, _, _) in zip(places, rows.values(), strict=True):
        words = f"{median:.1f} {unit}"
        axis.annotate(words, (median, place + 0.2), xytext=(-3, 3), textcoords="offset points")
    axis.set_yticks(places, list(rows))
    axis.set_ylim(-0.5, len(rows) - 0.3)
    axis.set_xlim(0, 1.2 * max(values[-1] for values in rows.values()))
    axis.grid(visible=False, axis="y")
