"""Pictures of the table and of the scaling curves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullLocator, PercentFormatter

from benchmarks.report import figures
from benchmarks.rows import ROWS, Result
from benchmarks.scaling import AXES
from experiments.plot import COLOURS, FAINT, INK, LINE, STYLE

BARS, CURVES = "performance.png", "scaling.png"


def draw(found: dict[str, Any], folder: Path) -> None:
    """Write both pictures (PNG) into `folder`, as far as there is something to draw."""
    folder.mkdir(parents=True, exist_ok=True)
    with plt.rc_context(STYLE):
        if found["rows"]:
            _bars(found["rows"], folder / BARS)
        if found["scaling"]:
            _curves(found["scaling"], folder / CURVES)


def _bars(rows: dict[str, Result], path: Path) -> None:
    kinds = [[name for name in ROWS if name in rows and ROWS[name].share is share] for share in (False, True)]
    kinds = [names for names in kinds if names]
    figure, axes = plt.subplots(
        len(kinds),
        figsize=(10, 1.6 + 0.52 * sum(map(len, kinds))),
        height_ratios=[len(names) + 0.6 for names in kinds],
        layout="constrained",
        squeeze=False,
    )
    for axis, names in zip(axes[:, 0], kinds, strict=True):
        _panel(axis, names, rows)
    figure.savefig(path, dpi=150, metadata={"Software": None})
    plt.close(figure)


def _panel(axis: Axes, names: list[str], rows: dict[str, Result]) -> None:
    share = ROWS[names[0]].share
    axis.set_title("Share of time or memory: less is better" if share else "Times as fast as the peer: more is better")
    for place, name in enumerate(names):
        row, numbers = ROWS[name], rows[name]
        value, ends = numbers["value"], [[numbers["value"] - numbers["low"]], [numbers["high"] - numbers["value"]]]
        missed = row.verdict(value) == "missed"
        axis.barh(place, value, 0.62, color=COLOURS[1] if missed else COLOURS[0], alpha=0.9)
        axis.errorbar(value, place, xerr=ends, color=INK, linewidth=1, capsize=2)
        for target, style in ((row.must, "-"), (row.aim, (0, (2, 1.5)))):
            if target is not None:
                axis.plot([target] * 2, [place - 0.42, place + 0.42], color=INK, linewidth=1.6, linestyle=style)
        note = f"  {row.written(value)}   {figures(numbers)}"
        axis.annotate(
            note,
            (max(value, numbers["high"], row.must or 0, row.aim or 0), place),
            va="center",
            fontsize=8,
            color=FAINT,
        )
    axis.set_yticks(range(len(names)), [f"{ROWS[name].what}\n{ROWS[name].peer}" for name in names], fontsize=8)
    axis.invert_yaxis()
    axis.margins(x=0.3)
    axis.set_xlim(left=min(0, axis.get_xlim()[0]) if any(rows[name]["value"] < 0 for name in names) else 0)
    if share:
        axis.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    else:
        axis.axvline(1, color=FAINT, linewidth=1)
    must, aim = (Line2D([], [], color=INK, linestyle=style) for style in ("-", (0, (2, 1.5))))
    axis.legend([must, aim], ["must", "aim"], loc="lower right", fontsize=8, ncols=2)


def _curves(scaling: dict[str, Any], path: Path) -> None:
    axes_of = [axis for axis in AXES if scaling.get(axis)]
    figure, axes = plt.subplots(1, len(axes_of), figsize=(3.6 * len(axes_of), 3.6), layout="constrained", squeeze=False)
    for axis, name in zip(axes[0], axes_of, strict=True):
        values = [int(value) for value in scaling[name]]
        for who, colour, label in (("ours", COLOURS[0], "ours"), ("peer", COLOURS[1], "SB3 PPO")):
            middle, low, high = (
                [point[who][key] for point in scaling[name].values()] for key in ("value", "low", "high")
            )
            axis.fill_between(values, low, high, color=colour, alpha=0.2, linewidth=0)
            axis.plot(values, middle, color=colour, linewidth=1.8, marker="o", markersize=4, label=label)
        if name != "depth":
            axis.set_xscale("log", base=2)
            axis.xaxis.set_minor_locator(NullLocator())
        axis.set_xticks(values)
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axis.set_ylim(bottom=0)
        axis.set_xlabel(AXES[name][0], color=INK)
        axis.grid(axis="y", color=LINE, linewidth=0.5, alpha=0.6)
    axes[0][0].set_title("Steps a second")
    axes[0][0].legend()
    figure.savefig(path, dpi=150, metadata={"Software": None})
    plt.close(figure)
