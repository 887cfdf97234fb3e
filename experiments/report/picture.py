"""One picture of a comparison, for pages that show pictures: returns, dead units and effective rank by method."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from experiments.analysis import Comparison, Method
from experiments.analysis.changes import Changes, changes
from experiments.analysis.curves import Curve, metric, returns
from experiments.plot import FAINT, INK, LINE, SHADE, STYLE
from experiments.report.colours import EDGE, EDGE_WIDTH, MOST_CURVES, fill, styles
from experiments.report.figures import MARKS, NAMES

DASHES: Any = {"solid": "-", "dashed": "--", "dotdash": "-.", "dotted": ":"}
METRICS = {"dead_fraction": "Dead units", "effective_rank": "Effective rank"}


def draw(comparisons: Sequence[Comparison], picture: Path) -> None:
    """Write `picture` (PNG): a row for each comparison, its networks' metrics beside the returns."""
    with plt.rc_context(STYLE):
        columns = 1 + max((len(_networks(one)) for one in comparisons), default=0)
        figure = plt.figure(figsize=(5.5 + 2.9 * (columns - 1), 4.4 * len(comparisons)), layout="constrained")
        parts = figure.subfigures(len(comparisons), 1, squeeze=False)[:, 0]
        for comparison, part in zip(comparisons, parts, strict=True):
            found = changes([*comparison.runs])
            grid = part.add_gridspec(2, columns, width_ratios=(5.5, *[2.9] * (columns - 1)))
            main = part.add_subplot(grid[:, 0])
            _panel(main, comparison, found, _returns(comparison))
            main.set_title("Return of an episode")
            for column, network in enumerate(_networks(comparison), 1):
                for row, (name, title) in enumerate(METRICS.items()):
                    axis = part.add_subplot(grid[row, column], sharex=main)
                    _panel(axis, comparison, found, _metric(comparison, network, name))
                    axis.set_title(f"{title}, {NAMES.get(network, network)}", fontsize=10)
                    axis.tick_params(labelbottom=row == 1)
                    if row == 0:
                        axis.set_xlabel("")
                    if name == "dead_fraction":
                        axis.set_ylim(bottom=min(0, axis.get_ylim()[0]))
                        axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
            part.suptitle(_heading(comparison), x=0.01, ha="left", fontsize=12, fontweight="bold", color=INK)
            part.legend(handles=_legend(comparison), loc="outside lower left", ncols=6)
        figure.savefig(picture, dpi=150, metadata={"Software": None})
        plt.close(figure)


def _networks(comparison: Comparison) -> list[str]:
    return comparison.networks[:3]


def _returns(comparison: Comparison) -> Callable[[Method], Curve]:
    return lambda method: returns(comparison, method)


def _metric(comparison: Comparison, network: str, name: str) -> Callable[[Method], Curve]:
    return lambda method: metric(comparison, method, network, name)


def _heading(comparison: Comparison) -> str:
    what = {"iqm": "interquartile mean", "mean": "mean"}[comparison.options.aggregate]
    return f"{comparison.name}: {what} over runs and 95 % bootstrap interval"


def _panel(axis: Axes, comparison: Comparison, found: Changes, curve: Callable[[Method], Curve]) -> None:
    look = styles(comparison)
    for method in comparison.methods[:MOST_CURVES]:
        line, (colour, _, dash) = curve(method), look[method.name]
        marker = "." if len(line.x) == 1 else None
        axis.plot(line.x, line.value, color=colour, linewidth=1.6, linestyle=DASHES[dash], marker=marker)
        inside, edge = (colour, fill(comparison)), (colour, EDGE)
        axis.fill_between(line.x, line.low, line.high, facecolor=inside, edgecolor=edge, linewidth=EDGE_WIDTH * 0.75)
    for place, period in enumerate(found.periods if len(found.periods) <= MARKS else ()):
        if place % 2:
            axis.axvspan(period.start, period.end, color=SHADE, zorder=-2, linewidth=0)
        if place:
            axis.axvline(period.start, color=FAINT, linewidth=0.8, linestyle=(0, (4, 3)), zorder=-1)
    axis.set_xlim(0, float(comparison.grid.edges[-1]))
    axis.set_xlabel("environment steps")
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _steps(value)))
    axis.xaxis.set_major_locator(MaxNLocator(4))
    axis.yaxis.set_major_locator(MaxNLocator(5))
    axis.grid(axis="y", color=LINE, linewidth=0.5, alpha=0.6)


def _legend(comparison: Comparison) -> list[Line2D]:
    look = styles(comparison)
    return [
        Line2D([], [], color=look[one.name][0], linestyle=DASHES[look[one.name][2]], label=_label(one))
        for one in comparison.methods[:MOST_CURVES]
    ]


def _label(method: Method) -> str:
    runs = len(method.runs)
    name = method.name.replace("$", r"\$").lstrip("_")  # neither mathematics nor hidden, as matplotlib would have it
    return f"{name}, {runs} run{'' if runs == 1 else 's'}"


def _steps(value: float) -> str:
    if value >= 1e6:
        return f"{value / 1e6:g}M"
    return f"{value / 1e3:g}k" if value >= 1e3 else f"{value:g}"
