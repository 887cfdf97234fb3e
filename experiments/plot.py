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
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

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


def plot_run(folder: Path, picture: Path, regimes: Sequence[Regime], steps: int, title: str) -> None:
    """Write `picture` (PNG) from what the run in `folder` wrote. steps: environment steps in all."""
    history = History(folder)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(3, 1, figsize=(10, 8), sharex=True, layout="constrained", height_ratios=(1.5, 1, 1))
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
        named = [f"{name} {value:.3g}" for name, value in regime.values.items()]
        bare = [f"{value:.3g}" for value in regime.values.values()]
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
