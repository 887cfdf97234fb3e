"""What came of playing: `play.csv` and the table that is printed, a row a regime."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.table import Table

from agents.frozen import Played
from experiments.summary import number

NAME = "play.csv"
STATISTICS = ("mean_return", "std_return", "min_return", "max_return", "mean_length")


@dataclass(frozen=True)
class Row:
    """A regime. values: in force, by target; training: the return that the run had there, None if it never did."""

    regime: int
    values: Mapping[str, float]
    episodes: Sequence[Played]
    training: float | None

    @property
    def statistics(self) -> tuple[float, ...]:
        """As in `STATISTICS`; the standard deviation is that of the episodes."""
        totals = [one.total for one in self.episodes]
        lengths = [one.length for one in self.episodes]
        return (*(float(f(totals)) for f in (np.mean, np.std, np.min, np.max)), float(np.mean(lengths)))


def write(path: Path, rows: Sequence[Row], step: int, policy: str) -> None:
    """step: environment steps that the agent was trained for; policy: deterministic or stochastic."""
    targets = sorted({name for row in rows for name in row.values})
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["step", "policy", "regime", *targets, "episodes", *STATISTICS, "training_return"])
        for row in rows:
            values = [row.values[name] for name in targets]
            training = "" if row.training is None else row.training
            writer.writerow([step, policy, row.regime, *values, len(row.episodes), *row.statistics, training])


def table(rows: Sequence[Row], policy: str) -> Table:
    """The same for people."""
    targets = sorted({name for row in rows for name in row.values})
    each = len(rows[0].episodes)
    title = f"Return on frozen regimes: {policy} policy, {each:,} episode{'s' * (each > 1)} each"
    shown = Table(title=title, title_justify="left", title_style="bold")
    for heading in ("regime", *targets, "mean", "std", "min", "max", "steps", "in training"):
        shown.add_column(heading, justify="right")
    for row in rows:
        values = [f"{row.values[name]:.3g}" for name in targets]
        statistics = [number(value) for value in row.statistics]
        shown.add_row(str(row.regime), *values, *statistics, number(row.training))
    return shown
