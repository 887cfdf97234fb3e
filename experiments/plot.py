"""One picture of a run: return, dead units and effective rank over time, with every change of the world marked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from agents import Adaptation
from experiments.episodes import Regime
from experiments.history import Floats, History, Series

INK, FAINT, LINE = "#22262b", "#8a929c", "#c9ced5"
COLOURS = ("#1f6fb4", "#d1581b", "#2a8f5d", "#8b4fb0")  # networks, in order; readable in print and by most eyes
SHADE = "#f3f5f8"
NAMES = {"pi": "policy", "vf": "value", "qf0": "critic 1", "qf1": "critic 2"}
STYLE: Any = {
    "font.size": 10,
    "axes.edgecolor": LINE,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlecolor": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 9,
}
CHARACTERS = 120  # of a label, side by side across the picture
MOST_LABELS = 16  # more regimes than this are marked by lines alone
MOST_CELLS = 12  # rows and columns of a matrix up to which each entry is written out


def plot_run(
    folder: Path,
    picture: Path,
    regimes: Sequence[Regime],
    steps: int,
    title: str,
    evaluated: Adaptation | None = None,
) -> None:
    """Write `picture` (PNG) from what the run in `folder` wrote.

    steps: environment steps in all; evaluated: returns on frozen regimes, drawn beside the curves.
    """
    history = History(folder)
    with plt.rc_context(STYLE):
        figure, axes = _panels(evaluated)
        figure.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold", color=INK)
        _returns(axes[0], history.returns())
        _per_network(axes[1], history, "dead_fraction", "Dead units")
        top = max(0.02, 1.1 * axes[1].get_ylim()[1])
        axes[1].set_ylim(-0.02 * top, top)  # a curve that lies on zero is seen
        axes[1].yaxis.set_major_formatter(PercentFormatter(1.0, decimals=1 if top < 0.05 else 0))
        _per_network(axes[2], history, "effective_rank", "Effective rank of the last hidden layer")
        axes[2].set_ylim(bottom=0)
        for axis in axes:
            _changes(axis, regimes, steps)
            axis.yaxis.set_major_locator(MaxNLocator(5))
            axis.grid(axis="y", color=LINE, linewidth=0.5, alpha=0.6)
            axis.set_axisbelow(True)
        _labels(axes[0], regimes, steps)
        axes[2].set_xlim(0, steps)
        axes[2].set_xlabel("environment steps")
        axes[2].xaxis.set_major_formatter(FuncFormatter(_step_label))
        figure.savefig(picture, dpi=150, metadata={"Software": None})
        plt.close(figure)


def _panels(evaluated: Adaptation | None) -> tuple[Figure, list[Axes]]:
    """Three panels for curves, one below the other; to their right the matrix of returns, if there is one."""
    figure = plt.figure(figsize=(10 if evaluated is None else 16, 8), layout="constrained")
    columns = 1 if evaluated is None else 2
    grid = figure.add_gridspec(3, columns, height_ratios=(1.5, 1, 1), width_ratios=(10, 6)[:columns])
    first = figure.add_subplot(grid[0, 0])
    axes = [first, *(figure.add_subplot(grid[row, 0], sharex=first) for row in (1, 2))]
    for axis in axes[:-1]:
        axis.tick_params(labelbottom=False)
    if evaluated is not None:
        _matrix(figure.add_subplot(grid[:, 1]), evaluated)
    return figure, axes


def _matrix(axis: Axes, evaluated: Adaptation) -> None:
    """Returns by the regime trained on (downwards, the untrained agent first) and the frozen regime tested on."""
    returns = np.vstack([evaluated.untrained, evaluated.returns])
    known = ~np.isnan(returns).all(axis=1)  # a regime that passed within one episode has no row
    names = np.array(["untrained", *map(str, range(len(evaluated.returns)))])[known]
    returns = returns[known]
    rows, columns = returns.shape
    image = axis.imshow(returns, cmap="YlGnBu", aspect="auto")
    figure = axis.get_figure()
    if figure is not None:
        figure.colorbar(image, ax=axis, shrink=0.6, pad=0.02).outline.set_visible(False)
    axis.set_facecolor(SHADE)  # of what was not tested
    axis.set_title("Return on frozen regimes")
    axis.set_xlabel("tested on regime")
    axis.set_ylabel("after training on regime")
    axis.xaxis.set_major_locator(MaxNLocator(MOST_CELLS, integer=True))
    shown = np.unique(np.linspace(0, rows - 1, min(rows, MOST_CELLS)).round().astype(int))
    axis.set_yticks(shown, names[shown])
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    for row, column in zip(*np.nonzero(~np.isnan(returns)), strict=True):
        own = names[row] == str(column)
        if own:
            axis.add_patch(Rectangle((column - 0.47, row - 0.47), 0.94, 0.94, fill=False, edgecolor=COLOURS[1], lw=1.6))
        if max(rows, columns) <= MOST_CELLS:
            red, green, blue, _ = image.to_rgba(returns[row, column])
            dark = 0.3 * red + 0.59 * green + 0.11 * blue < 0.5
            text = f"{returns[row, column]:.3g}" if abs(returns[row, column]) < 1000 else f"{returns[row, column]:,.0f}"
            axis.text(column, row, text, ha="center", va="center", fontsize=9, color="white" if dark else INK)


def _returns(axis: Axes, returns: Series) -> None:
    axis.set_title("Return of an episode", pad=22)
    if len(returns):
        axis.plot(returns.steps, returns.values, ".", color=COLOURS[0], markersize=4, alpha=0.3, rasterized=True)
        axis.plot(
            returns.steps, _running_mean(returns.values, max(10, len(returns) // 25)), color=COLOURS[0], linewidth=2
        )
        low, high = np.percentile(returns.values, [0.5, 99.5])
        margin = 0.06 * max(high - low, 1e-9)
        axis.set_ylim(low - margin, high + margin)  # a few extreme episodes must not flatten the rest


def _per_network(axis: Axes, history: History, metric: str, title: str) -> None:
    axis.set_title(title)
    for network, colour in zip(history.networks(), COLOURS * 4, strict=False):
        series = history.scalar(f"plasticity/{network}/{metric}")
        axis.plot(
            series.steps,
            series.values,
            color=colour,
            linewidth=1.8,
            label=NAMES.get(network, network),
            marker="." if len(series) == 1 else None,
        )
    if axis.lines:
        axis.legend(loc="lower right", bbox_to_anchor=(1.0, 0.98), ncols=4, borderaxespad=0, handlelength=1.2)


def _changes(axis: Axes, regimes: Sequence[Regime], steps: int) -> None:
    """Every second regime lies on a shade, and a line marks each change."""
    ends = [*(regime.start for regime in regimes[1:]), steps]
    for place, (regime, end) in enumerate(zip(regimes, ends, strict=True)):
        if place % 2:
            axis.axvspan(regime.start, end, color=SHADE, zorder=-2, linewidth=0)
        if place:
            axis.axvline(regime.start, color=FAINT, linewidth=1, linestyle=(0, (4, 3)), zorder=-1)


def _labels(axis: Axes, regimes: Sequence[Regime], steps: int) -> None:
    """The values in force, above each regime; of one target the name is said once."""
    if len(regimes) > MOST_LABELS or not any(regime.values for regime in regimes):
        return
    ends = [*(regime.start for regime in regimes[1:]), steps]
    one = all(len(regime.values) == 1 for regime in regimes)
    for place, (regime, end) in enumerate(zip(regimes, ends, strict=True)):
        bare = [regime.told(name, "{:.3g}".format) for name in regime.values]
        named = [f"{name} {text}" for name, text in zip(regime.values, bare, strict=True)]
        room = CHARACTERS * (end - regime.start) / max(steps, 1)
        words = bare if one and place else next((w for w in (named, bare) if max(map(len, w)) <= room), [])
        axis.annotate(
            "\n".join(words),
            ((regime.start + end) / 2, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(0, 4),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=9,
            color=INK,
        )


def _running_mean(values: Floats, window: int) -> Floats:
    """The mean of the last `window` values at each place, of fewer at the beginning."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    last = np.arange(1, len(values) + 1)
    first = np.maximum(last - window, 0)
    return np.asarray((sums[last] - sums[first]) / (last - first), dtype=np.float64)


def _step_label(value: float, _: object) -> str:
    if value >= 1e6:
        return f"{value / 1e6:g}M"
    return f"{value / 1e3:g}k" if value >= 1e3 else f"{value:g}"
