"""Curves of methods: the aggregate of the runs at each place, with its interval."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from experiments.analysis.comparison import AGGREGATES, Comparison, Method
from experiments.analysis.grid import band
from experiments.analysis.statistics import Floats

RESAMPLES = 1000  # of a curve: hundreds of places are drawn at once
METRIC_TITLES = {
    "dead_fraction": "dead units",
    "effective_rank": "effective rank",
    "weight_magnitude": "mean |weight|",
}


@dataclass(frozen=True, eq=False)
class Curve:
    """All (places,). x: environment steps at the bins' centres, or regimes; runs: how many there are at each place."""

    x: Floats
    value: Floats
    low: Floats
    high: Floats
    runs: Floats

    def __bool__(self) -> bool:
        return len(self.x) > 0


def returns(comparison: Comparison, method: Method) -> Curve:
    """Mean return of the episodes that ended in each bin."""
    return _curve(comparison, comparison.grid.centres, [one.returns for one in method.runs])


def metric(comparison: Comparison, method: Method, network: str, name: str) -> Curve:
    """A plasticity metric of a network."""
    found = [one.plasticity[network][name] for one in method.runs if name in one.plasticity.get(network, {})]
    return _curve(comparison, comparison.grid.centres, found)


def by_regime(comparison: Comparison, method: Method) -> Curve:
    """Mean return of each regime, of the runs that are compared."""
    rows = [one.regime_returns for one in method.compared]
    most = max(map(len, rows), default=0)
    padded = [np.pad(row, (0, most - len(row)), constant_values=np.nan) for row in rows]
    return _curve(comparison, np.arange(most, dtype=np.float64), padded)


def _curve(comparison: Comparison, x: Floats, rows: list[Floats]) -> Curve:
    if not rows or not np.isfinite(rows).any():
        return Curve(*(np.empty(0) for _ in range(5)))
    value, low, high = band(rows, AGGREGATES[comparison.options.aggregate], RESAMPLES)
    runs = np.isfinite(rows).sum(axis=0).astype(np.float64)
    known = runs > 0
    return Curve(x[known], value[known], low[known], high[known], runs[known])
