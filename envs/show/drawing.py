"""The picture of what an environment will go through: a panel for each target."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from envs.show.timeline import Track, change_points, regime_at

INK, FAINT, LINE, COLOUR = "#22262b", "#8a929c", "#c9ced5", "#1f6fb4"
MOST_LABELS = 16  # more regimes than this are marked by lines alone
MOST_LINES = 200  # more than this would paint the panel grey
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
}


def draw(picture: Path, tracks: Sequence[Track], horizon: int, title: str) -> None:
    """Write `picture` (PNG). horizon: environment steps of all sub-environments together."""
    with plt.rc_context(STYLE):
        figure, grid = plt.subplots(
            len(tracks), 1, figsize=(10, 1.2 + 2.6 * len(tracks)), sharex=True, layout="constrained", squeeze=False
        )
        figure.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold", color=INK)
        points = change_points(tracks)
        for axis, track in zip(grid[:, 0], tracks, strict=True):
            _panel(axis, track, horizon)
            if points[1:] and len(points) <= MOST_LINES:
                axis.vlines(points[1:], 0, 1, transform=axis.get_xaxis_transform(), color=LINE, linewidth=0.8, zorder=0)
        if 1 < len(points) <= MOST_LABELS:
            _regimes(grid[0, 0], tracks, horizon)
        last = grid[-1, 0]
        last.set_xlim(0, horizon)
        last.set_xlabel("environment steps, all sub-environments together")
        last.xaxis.set_major_formatter(FuncFormatter(_steps))
        figure.savefig(picture, dpi=130, metadata={"Software": None})
        plt.close(figure)


def _panel(axis: Axes, track: Track, horizon: int) -> None:
    axis.set_title(f"{track.name}: {track.schedule}", pad=20)
    axis.text(0, 1.035, track.boundary, transform=axis.transAxes, fontsize=9, color=FAINT)
    if track.zeros is not None:
        _mask(axis, track, horizon)
        return
    times, values = [*track.times, horizon], [*track.values, track.values[-1]]
    axis.step(times, values, where="post", color=COLOUR, linewidth=2 if len(times) <= MOST_LINES else 1)
    axis.axhline(track.nominal, color=FAINT, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    axis.annotate(
        "nominal", (1, track.nominal), xycoords=axis.get_yaxis_transform(), xytext=(4, 0), textcoords="offset points",
        va="center", fontsize=9, color=FAINT, annotation_clip=False,
    )  # fmt: skip
    axis.set_ylabel("value" if track.entries is None else f"reading of {track.entries} entries")
    if track.logarithmic:
        axis.set_yscale("log")
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=8))
        axis.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
        axis.yaxis.set_minor_formatter(NullFormatter())
    else:
        axis.yaxis.set_major_locator(MaxNLocator(5))
    axis.margins(y=0.2)
    if not track.drifts and len(track.times) <= MOST_LABELS:
        for start, end, value in zip(times, times[1:], values, strict=False):
            axis.annotate(
                f"{value:.3g}", ((start + end) / 2, value), xytext=(0, 4), textcoords="offset points",
                ha="center", va="bottom", fontsize=9, color=INK,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5, "alpha": 0.8},
            )  # fmt: skip


def _mask(axis: Axes, track: Track, horizon: int) -> None:
    """Bars where entries are 0: which actuator fails, or which observation is hidden, and when."""
    ends = [*track.times[1:], horizon]
    for start, end, places in zip(track.times, ends, track.zeros or (), strict=True):
        axis.barh(places, end - start, left=start, height=0.7, color=COLOUR)
    axis.set_ylim((track.entries or 1) - 0.5, -1.3)  # entry 0 on top, below the numbers of the regimes
    axis.set_yticks(range(0, track.entries or 1, 1 + (track.entries or 1) // 20))
    axis.set_ylabel("entries that are 0")


def _regimes(axis: Axes, tracks: Sequence[Track], horizon: int) -> None:
    """Number the regimes as infos do."""
    points = change_points(tracks)
    for start, end in zip(points, [*points[1:], horizon], strict=True):
        number = regime_at(tracks, start)
        text = f"regime {number}" if number == 0 else str(number)
        axis.text(
            (start + end) / 2, 0.985, text, transform=axis.get_xaxis_transform(), ha="center", va="top", fontsize=8,
            color=FAINT,
        )  # fmt: skip


def _steps(t: float, _: object = None) -> str:
    for unit, letter in ((1e6, "M"), (1e3, "k")):
        if abs(t) >= unit:
            return f"{t / unit:g}{letter}"
    return f"{t:g}"
