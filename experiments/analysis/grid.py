"""The common axis of the curves: bins of environment steps, wide enough that an episode ends in each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from experiments.analysis.runs import RunFolder
from experiments.analysis.statistics import RESAMPLES, Floats, Statistic, stratified_bootstrap_interval
from experiments.history import Series

MOST_BINS = 200
EPISODES = 2  # that end in a bin, at least, if each is as long as the longest


@dataclass(frozen=True)
class Grid:
    """Bins of `width` environment steps, from 0 on."""

    width: int
    bins: int

    @property
    def edges(self) -> Floats:
        """(bins + 1,)"""
        return np.arange(self.bins + 1, dtype=np.float64) * self.width

    @property
    def centres(self) -> Floats:
        """(bins,)"""
        return np.asarray(self.edges[:-1] + self.width / 2, np.float64)


def grid_for(runs: Sequence[RunFolder], steps: int, width: int | None = None) -> Grid:
    """Of at most 200 bins; or with bins of `width` steps."""
    if width is None:
        episodes = max((run.longest * int(run.config["env"].get("n_envs", 1)) for run in runs), default=0)
        width = rounded_up(max(1, steps / MOST_BINS, min(EPISODES * episodes, steps / 10)))
    return Grid(width, max(1, math.floor(steps / width + 0.01)))


def rounded_up(steps: float) -> int:
    """The next of 1, 2, 5, 10, 20, 50, ..."""
    powers = [int(10**power) for power in range(20)]
    return next(digit * power for power in powers for digit in (1, 2, 5) if digit * power >= steps)


def on_grid(series: Series, grid: Grid) -> Floats:
    """A measurement at the bins' centres, straight lines between; NaN before the first and after the last one."""
    if not len(series):
        return np.full(grid.bins, np.nan)
    return np.asarray(np.interp(grid.centres, series.steps, series.values, np.nan, np.nan), np.float64)


def band(curves: Sequence[Floats], statistic: Statistic, resamples: int = RESAMPLES) -> tuple[Floats, Floats, Floats]:
    """The aggregate of runs at each place and the ends of its interval; where runs have ended, of those that remain.

    curves: each (places,), NaN where there is nothing.
    """
    values = np.array(curves, np.float64)
    middle, low, high = (np.full(values.shape[1], np.nan) for _ in range(3))
    known = np.isfinite(values)
    for pattern in np.unique(known.T, axis=0):
        if pattern.any():
            places = (pattern == known.T).all(axis=1)
            here = values[np.ix_(pattern, places)]
            middle[places] = statistic(here, 0)
            low[places], high[places] = stratified_bootstrap_interval([here], statistic, resamples=resamples)
    return middle, low, high
