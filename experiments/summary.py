"""The table at the end of a run: what it learned in each regime, how plastic it stayed, and what to type next."""

from __future__ import annotations

import csv
import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from experiments import folder as files
from experiments.episodes import Regime
from experiments.history import Floats, History

PLASTICITY = ("network", "dead units", "effective rank", "mean |weight|", "units replaced")
WIDTH = 100  # columns of the summary as it is kept in summary.txt


def write_regimes(path: Path, regimes: Sequence[Regime], steps: int) -> None:
    """`regimes.csv`: a row a regime. steps: environment steps in all, where the last one ends."""
    targets = sorted({name for regime in regimes for name in regime.values})
    ends = [*(regime.start for regime in regimes[1:]), steps]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["regime", "first_step", "last_step", *targets, "episodes", "mean_return", "last_return"])
        for regime, end in zip(regimes, ends, strict=True):
            values = [regime.told(name, repr) if name in regime.values else "" for name in targets]
            mean = float(np.mean(regime.returns)) if regime.returns else ""
            writer.writerow([regime.index, regime.start, end, *values, len(regime.returns), mean, _late(regime) or ""])


def parts(
    folder: Path,
    regimes: Sequence[Regime],
    ended: str,
    commands: Sequence[tuple[str, str]],
    more: Sequence[Table | str] = (),
) -> list[Table | str]:
    """The summary, top to bottom.

    ended: such as "finished after 9 steps"; commands: as from `next_commands`; more: what else there is to say.
    """
    tables = [name for name in (files.FORGETTING, files.ADAPTATION) if (folder / name).is_file()]
    return [
        "",
        _regime_table(regimes),
        _network_table(History(folder)),
        *more,
        "",
        f"{ended}; all of it is in {folder}:",
        "  " + ", ".join([files.PICTURE, files.MODEL, *files.TABLES[:3], *tables, files.CONFIG]),
        "",
        "what to type next",
        *(f"  {command}  # {does}" for command, does in commands),
    ]


def next_commands(
    folder: Path, choices: Mapping[str, Sequence[str]], words: Sequence[str], seed: int
) -> list[tuple[str, str]]:
    """Commands worth typing now, each with what it does. words: the overrides this run was started with."""
    other = "none" if choices["plasticity"] != ("none",) else "cbp"
    own = ("run.dir=", "run.name=", "run.overwrite=")
    kept = [word for word in words if not word.lstrip("+~").startswith((*own, "plasticity"))]
    again = [word for word in words if not word.lstrip("+~").startswith((*own, "seed="))]
    return [
        (
            shlex.join(["python", "-m", "tensorboard.main", "--logdir", str(folder.parent)]),
            "curves of this run and its neighbours",
        ),
        (
            shlex.join(["python", "-m", "experiments.play", str(folder)]),
            "watch it in the regimes it met, and in others",
        ),
        (shlex.join(["python", "train.py", *kept, f"plasticity={other}"]), "the same world with another method"),
        (shlex.join(["python", "train.py", *again, f"seed={seed + 1}"]), "the same with another seed"),
    ]


def render(folder: Path, parts: Sequence[Table | str], console: Console) -> None:
    """Print the summary and keep a copy in the run's folder."""
    with (folder / files.SUMMARY).open("w", encoding="utf-8") as file:
        for target in (console, Console(file=file, width=WIDTH)):
            for part in parts:
                target.print(part, highlight=False, markup=False, soft_wrap=isinstance(part, str))


def _regime_table(regimes: Sequence[Regime]) -> Table:
    targets = sorted({name for regime in regimes for name in regime.values})
    table = Table(title="Return per regime", title_justify="left", title_style="bold")
    for heading in ("regime", "from step", *targets, "episodes", "mean return", "last tenth"):
        table.add_column(heading, justify="right")
    for regime in regimes:
        values = [regime.told(name, number) if name in regime.values else number(None) for name in targets]
        mean = float(np.mean(regime.returns)) if regime.returns else None
        row = [str(regime.index), f"{regime.start:,}", *values, str(len(regime.returns))]
        table.add_row(*row, number(mean), number(_late(regime)))
    return table


def _network_table(history: History) -> Table:
    table = Table(title="Plasticity, first to last measurement", title_justify="left", title_style="bold")
    table.add_column(PLASTICITY[0])
    for heading in PLASTICITY[1:]:
        table.add_column(heading, justify="right")
    for row in plasticity_rows(history):
        table.add_row(*row)
    return table


def plasticity_rows(history: History) -> list[tuple[str, ...]]:
    """A row a network, under the headings `PLASTICITY`."""
    rows: list[tuple[str, ...]] = []
    for network in history.networks():
        first_to_last = (
            _span(history.scalar(f"plasticity/{network}/dead_fraction").values, "{:.1%}"),
            _span(history.scalar(f"plasticity/{network}/effective_rank").values, "{:.3g}"),
            _span(history.scalar(f"plasticity/{network}/weight_magnitude").values, "{:.3g}"),
        )
        replaced = history.scalar(f"plasticity/{network}/replaced").values
        rows.append((network, *first_to_last, f"{replaced[-1]:,.0f}" if len(replaced) else "-"))
    return rows


def _span(values: Floats, form: str) -> str:
    ends = [form.format(value) for value in (values if len(values) < 2 else values[[0, -1]])]
    return " -> ".join(ends) or "-"


def _late(regime: Regime) -> float | None:
    """Mean return of the last tenth of a regime's episodes: what was reached before the next change."""
    count = max(1, len(regime.returns) // 10)
    return float(np.mean(regime.returns[-count:])) if regime.returns else None


def number(value: float | None) -> str:
    """A return or a count of steps, short; a dash for None and NaN."""
    if value is None or math.isnan(value):
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
