"""File, table and figure of the label-permutation experiment.

Accuracies everywhere are online accuracies, (seeds, tasks), float64. Seed k of every method saw the same data and, as
far as its architecture allows, began with the same weights, so methods are compared seed by seed. Intervals are
Student's, 95 %, of a mean over seeds.
"""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter
from rich import box
from rich.table import Table

from experiments.plot import COLOURS, FAINT, INK, LINE, STYLE

Accuracies = npt.NDArray[np.float64]
WINDOW = 5  # tasks averaged at the start and at the end
FEWEST_SEEDS = 3
COLUMNS = 5  # panels side by side
HEADINGS = ("method", f"first {WINDOW} tasks", f"last {WINDOW} tasks", "change", "over plain")


@dataclass(frozen=True, eq=False)
class Recorded:
    """What a file says of a method: the conditions it ran under, and its accuracies."""

    conditions: str
    accuracies: Accuracies


def half_width(values: Accuracies) -> Accuracies:
    """Of the 95 % confidence interval of the mean over the first dimension: t * standard deviation / sqrt(seeds)."""
    seeds = len(values)
    width: Accuracies = student(seeds - 1) * values.std(0, ddof=1) / math.sqrt(seeds)
    return width


def student(freedom: int) -> float:
    """The 97.5 % quantile of Student's t: the normal one and its expansion in 1 / freedom.

    Abramowitz & Stegun 26.7.5; 3 % too small at 2 degrees of freedom, less than 0.3 % from 4 on.
    """
    z = 1.959964
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / freedom + second / freedom**2 + third / freedom**3


def write_accuracies(path: Path, recorded: Mapping[str, Recorded]) -> None:
    """One line for each method, seed and task; the file is whole at every moment."""
    partial = path.with_suffix(".partial")
    with partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["method", "seed", "task", "accuracy", "conditions"])
        for method, one in recorded.items():
            for (seed, task), accuracy in np.ndenumerate(one.accuracies):
                writer.writerow([method, seed, task + 1, f"{accuracy:.6f}", one.conditions])
    os.replace(partial, path)


def read_accuracies(path: Path) -> dict[str, Recorded]:
    """What `write_accuracies` wrote; nothing if there is no such file."""
    rows: dict[str, dict[int, list[float]]] = {}
    conditions: dict[str, str] = {}
    if path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                rows.setdefault(row["method"], {}).setdefault(int(row["seed"]), []).append(float(row["accuracy"]))
                conditions[row["method"]] = row["conditions"]
    return {name: Recorded(conditions[name], np.array(list(seeds.values()))) for name, seeds in rows.items()}


def windows(accuracies: Accuracies) -> tuple[Accuracies, Accuracies]:
    """Each seed's accuracy over the first and over the last five tasks, (seeds,) each."""
    return accuracies[:, :WINDOW].mean(1), accuracies[:, -WINDOW:].mean(1)


def ranked(accuracies: Mapping[str, Accuracies]) -> list[str]:
    """The methods, the most accurate over the last tasks first."""
    return sorted(accuracies, key=lambda method: -float(windows(accuracies[method])[1].mean()))


def table_rows(accuracies: Mapping[str, Accuracies]) -> list[tuple[str, ...]]:
    """The cells under `HEADINGS`, in percent and points of percent."""
    rows: list[tuple[str, ...]] = []
    for method in ranked(accuracies):
        first, last = windows(accuracies[method])
        difference = "-"
        if "plain" in accuracies and method != "plain":
            difference = _interval(last - windows(accuracies["plain"])[1], "+")
        rows.append((method, _interval(first), _interval(last), _interval(last - first, "+"), difference))
    return rows


def _interval(values: Accuracies, sign: str = "") -> str:
    return f"{100 * values.mean():{sign}.1f} ± {100 * float(half_width(values)):.1f}"


def _caption(accuracies: Mapping[str, Accuracies]) -> str:
    seeds = len(next(iter(accuracies.values())))
    return f"Online accuracy in percent, mean of {seeds} seeds and 95 % confidence interval"


def summary(accuracies: Mapping[str, Accuracies]) -> Table:
    """The table for a terminal, the most accurate over the last five tasks first."""
    table = Table(
        title=_caption(accuracies), title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False
    )
    for place, heading in enumerate(HEADINGS):
        table.add_column(heading, justify="right" if place else "left", no_wrap=True)
    for row in table_rows(accuracies):
        table.add_row(*row)
    return table


def markdown(accuracies: Mapping[str, Accuracies]) -> str:
    """The same table in Markdown."""
    lines: list[Sequence[str]] = [HEADINGS, ("---", *["---:"] * (len(HEADINGS) - 1))]
    lines += [(f"`{method}`", *cells) for method, *cells in table_rows(accuracies)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def write_figure(path: Path, accuracies: Mapping[str, Accuracies], chance: float) -> Path:
    """A panel for each method, the plain learner's curve in grey in all of them; bands are 95 % intervals."""
    plain = accuracies.get("plain")
    methods = [method for method in ranked(accuracies) if method != "plain"] or ["plain"]
    height = math.ceil(len(methods) / COLUMNS)
    with plt.rc_context({**STYLE, "axes.titlesize": 10}):
        figure, panels = plt.subplots(
            height,
            COLUMNS,
            figsize=(2.3 * COLUMNS, 0.8 + 1.65 * height),
            sharex=True,
            sharey=True,
            squeeze=False,
            layout="constrained",
        )
        for axes, method in zip(panels.flat, methods, strict=False):
            axes.axhline(chance, color=LINE, linewidth=0.8, linestyle=(0, (4, 3)))
            if plain is not None:
                _curve(axes, plain, FAINT)
            _curve(axes, accuracies[method], COLOURS[0])
            axes.set_title(method)
            axes.text(
                0.98,
                0.97,
                f"{windows(accuracies[method])[1].mean():.0%}",
                transform=axes.transAxes,
                ha="right",
                va="top",
                color=COLOURS[0],
                fontsize=9,
            )
        for axes in panels.flat[len(methods) :]:
            axes.set_axis_off()
        for place, axes in enumerate(panels.flat[: len(methods)]):
            axes.xaxis.set_tick_params(labelbottom=place + COLUMNS >= len(methods))
        first = panels[0, 0]
        first.set_ylim(0, 1)
        first.set_yticks([0, 0.5, 1])
        first.yaxis.set_major_formatter(PercentFormatter(1))
        figure.supxlabel("Task", fontsize=10, color=INK)
        figure.suptitle(
            f"{_caption(accuracies).replace(' in percent', '')}. Grey: plain backpropagation; "
            f"dashed: chance; number: last {WINDOW} tasks",
            x=0.01,
            ha="left",
            fontsize=10.5,
            color=INK,
        )
        figure.savefig(path, dpi=120)
        plt.close(figure)
    return path


def _curve(axes: Axes, accuracies: Accuracies, colour: str) -> None:
    tasks, mean = np.arange(1, accuracies.shape[1] + 1), accuracies.mean(0)
    width = half_width(accuracies)
    axes.plot(tasks, mean, color=colour, linewidth=1.5)
    axes.fill_between(tasks, mean - width, mean + width, color=colour, alpha=0.2, linewidth=0)
