"""One run's tables as arrays: episodes, regimes, and the few scalars that are compared."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments import folder as files
from experiments.analysis.runs import RunFolder
from experiments.analysis.statistics import Floats
from experiments.errors import BadInput
from experiments.history import Series

STEPS, ELAPSED = "time/total_timesteps", "time/time_elapsed"
METRICS = ("dead_fraction", "effective_rank", "weight_magnitude", "dormant_fraction")
ADAPTED = ("forgetting", "recovery_steps", "gap_to_fresh")  # columns of adaptation.csv whose means are compared
OWN = ("regime", "first_step", "last_step", "episodes", "mean_return", "last_return")  # others are the world's values


@dataclass(frozen=True)
class Stretch:
    """A regime as a run met it. start, end: environment steps; values: of what changes, as it was written."""

    index: int
    start: float
    end: float
    values: Mapping[str, str]


@dataclass(frozen=True, eq=False)
class Tables:
    """A run as far as it is looked at. episodes: (episodes, 5): step, sub-environment, regime, return, length.

    scalars: network -> metric -> its values over time; seconds: spent on training; adapted: means of adaptation.csv.
    """

    episodes: Floats
    regimes: tuple[Stretch, ...]
    scalars: Mapping[str, Mapping[str, Series]]
    seconds: float
    adapted: Mapping[str, float]


def read(run: RunFolder) -> Tables:
    """Read a run, also while it goes on; raises `BadInput` if a table holds something else than it should."""
    try:
        episodes = read_episodes(run.path / files.EPISODES)
        columns = _columns(run.path / files.PROGRESS)
        regimes = list(_written(run.path / files.REGIMES)) if run.state == "finished" else []
        adapted = _means(run.path / files.ADAPTATION)
    except (OSError, ValueError, IndexError) as error:
        raise BadInput(f"{run.name} cannot be read: {' '.join(str(error).split())}") from error
    scalars: dict[str, dict[str, Series]] = {}
    for tag, series in columns.items():
        if match := re.fullmatch(r"plasticity/([^/]+)/([^/]+)", tag):
            scalars.setdefault(match[1], {})[match[2]] = series
    return Tables(
        episodes,
        tuple(regimes or _seen(episodes, run.steps)),
        scalars,
        _seconds(columns.get(ELAPSED, Series(np.empty(0), np.empty(0)))),
        adapted,
    )


def read_episodes(path: Path) -> Floats:
    """The rows of `episodes.csv`, (episodes, 5); a row that is still being written is left out."""
    content = path.read_bytes() if path.is_file() else b""
    body = content[content.find(b"\n") + 1 : content.rfind(b"\n") + 1]
    if not body.strip():
        return np.empty((0, 5))
    return np.loadtxt(io.BytesIO(body), delimiter=",", ndmin=2, usecols=range(5), dtype=np.float64)


def _columns(path: Path) -> dict[str, Series]:
    """The scalars of `METRICS` of each network, and the seconds since the start; of hundreds that the table holds."""
    if not path.is_file():
        return {}
    pattern = re.compile(rf"plasticity/[^/]+/({'|'.join(METRICS)})")
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.reader(file)
        heading = next(rows, [])
        wanted = {tag: place for place, tag in enumerate(heading) if pattern.fullmatch(tag) or tag == ELAPSED}
        points: dict[str, list[tuple[str, str]]] = {tag: [] for tag in wanted}
        for row in rows:
            if len(row) == len(heading):  # else it is being written
                for tag, place in wanted.items():
                    if row[place]:
                        points[tag].append((row[0], row[place]))
    if heading and heading[0] != STEPS:
        raise ValueError(f"the first column of {path.name} must be {STEPS}, got {heading[0]!r}")
    arrays = {tag: np.array(found, np.float64).reshape(-1, 2) for tag, found in points.items()}
    return {tag: Series(array[:, 0], array[:, 1]) for tag, array in arrays.items()}


def _written(path: Path) -> Iterator[Stretch]:
    if path.is_file():
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                values = {name: text for name, text in row.items() if name not in OWN and text}
                yield Stretch(int(row["regime"]), float(row["first_step"]), float(row["last_step"]), values)


def _seen(episodes: Floats, steps: int) -> Iterator[Stretch]:
    """The regimes of a run that has not written them down yet: each begins where its first episode did, about."""
    if not len(episodes):
        return
    envs = int(episodes[:, 1].max()) + 1
    known = np.unique(episodes[:, 2])
    starts = []
    for regime in known:
        first = episodes[np.argmax(episodes[:, 2] == regime)]
        starts.append(max(0.0, float(first[0] - envs * first[4])))
    starts[0] = 0.0
    starts = list(np.maximum.accumulate(starts))
    for regime, start, end in zip(known, starts, [*starts[1:], float(steps)], strict=True):
        yield Stretch(int(regime), start, end, {})


def _seconds(elapsed: Series) -> float:
    """Of all processes together: the clock begins anew with each."""
    if not len(elapsed):
        return 0.0
    restarts = np.flatnonzero(np.diff(elapsed.values) < 0)
    return float(elapsed.values[restarts].sum() + elapsed.values[-1])


def _means(path: Path, columns: Collection[str] = ADAPTED) -> dict[str, float]:
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    found = {name: [float(row[name]) for row in rows if row.get(name)] for name in columns}
    return {name: float(np.mean(values)) for name, values in found.items() if values}
