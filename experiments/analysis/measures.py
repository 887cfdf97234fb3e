"""What a run is measured by: one number each, with its unit and its meaning.

Returns are averaged over time, not over episodes: a stretch of time is cut into parts of equal length, each part counts
with the mean return of the episodes that ended in it, and a part in which none ended with that of the next part, whose
episode it belongs to. So a thousand short failures weigh no more than the time they took.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from experiments.analysis.reading import Stretch, Tables
from experiments.analysis.statistics import Floats, slope

PARTS = 20  # of a regime, at least; and 100 of a run
LAST = 2  # regimes that are the last ones
WHOLE = 0.5  # a regime that was cut short counts if it is at least so long, the longest being 1
END = 0.1  # share of the steps that is the end


@dataclass(frozen=True)
class Measure:
    """name: as code has it; title: as people read it; better: 1: the larger, -1: the smaller, 0: neither."""

    name: str
    title: str
    unit: str
    better: int
    meaning: str
    percent: bool = False


MEASURES = {
    one.name: one
    for one in (
        Measure(
            "mean_return",
            "mean return",
            "return",
            1,
            "the area under the curve of returns, divided by the steps: what the agent earned all in all",
        ),
        Measure(
            "last_regimes",
            f"last {LAST} regimes",
            "return",
            1,
            f"mean return over the last {LAST} regimes (the whole run where there are fewer than {LAST + 1})",
        ),
        Measure("last_tenth", "last tenth", "return", 1, "mean return over the last tenth of the steps"),
        Measure("first_regime", "first regime", "return", 1, "mean return before the first change of the world"),
        Measure(
            "regime_slope",
            "trend over regimes",
            "return per regime",
            1,
            "slope of the regimes' mean returns, first to last: negative where new tasks are learnt worse and worse; "
            "from 3 regimes on",
        ),
        Measure("dead_units", "dead units", "share of units", -1, "over the last tenth, mean of the networks", True),
        Measure(
            "dead_units_change",
            "change of dead units",
            "share of units",
            -1,
            "by the least-squares line from the first to the last step, mean of the networks",
            True,
        ),
        Measure(
            "dormant_units",
            "dormant units",
            "share of units",
            -1,
            "score of at most 0.025 (ReDo), over the last tenth, mean of the networks",
            True,
        ),
        Measure(
            "rank",
            "effective rank",
            "dimensions",
            1,
            "of the last hidden layer, over the last tenth, mean of the networks",
        ),
        Measure(
            "rank_change",
            "change of rank",
            "dimensions",
            1,
            "by the least-squares line from the first to the last step, mean of the networks",
        ),
        Measure("weights", "mean |weight|", "", 0, "over the last tenth, mean of the networks"),
        Measure("forgetting", "forgetting", "return", -1, "on frozen regimes: the best before, less that of now"),
        Measure("recovery_steps", "recovery", "steps", -1, "from a change until the return is back, if it ever was"),
        Measure("gap_to_fresh", "gap to fresh", "return", 1, "at a regime's end, less that of a fresh agent"),
    )
}
OVER_TIME = {"dead_units": "dead_fraction", "rank": "effective_rank"}  # measures with a change of their own
AT_END = {**OVER_TIME, "dormant_units": "dormant_fraction", "weights": "weight_magnitude"}


def measure(tables: Tables, steps: float) -> tuple[dict[str, float], Floats]:
    """All measures of a run over its first `steps` that can be had of it, and the mean return of each whole regime."""
    stretches = within(tables.regimes, steps)
    parts = max(PARTS, -(-100 // max(1, len(stretches))))
    returns = [mean_return(tables.episodes, one.start, one.end, parts) for one in stretches]
    lengths = np.array([one.end - one.start for one in stretches])
    found = {"last_tenth": mean_return(tables.episodes, (1 - END) * steps, steps, PARTS)}
    if len(stretches):
        known = np.isfinite(returns)
        whole = known & (lengths >= WHOLE * lengths.max())
        regimes = np.array(returns)[whole]
        found["mean_return"] = (
            float(np.average(np.array(returns)[known], weights=lengths[known])) if known.any() else np.nan
        )
        found["last_regimes"] = float(regimes[-LAST:].mean()) if len(regimes) > LAST else found["mean_return"]
        if len(regimes) > 1:
            found["first_regime"] = float(regimes[0])
        if len(regimes) > 2:
            found["regime_slope"] = slope(np.flatnonzero(whole), regimes)
        returns = [value if use else np.nan for value, use in zip(returns, whole, strict=True)]
    found |= _plasticity(tables, steps)
    if tables.regimes and steps >= 0.99 * tables.regimes[-1].end:  # what the whole run was tested for
        found |= tables.adapted
    return {name: value for name, value in found.items() if np.isfinite(value)}, np.array(returns, np.float64)


def mean_return(episodes: Floats, start: float, end: float, parts: int) -> float:
    """The return averaged over the time from `start` to `end`, environment steps; NaN where no episode ended."""
    edges = np.linspace(start, end, parts + 1)
    values = binned(episodes, edges)
    return float(values.mean()) if len(values) and np.isfinite(values).all() else np.nan


def binned(episodes: Floats, edges: Floats) -> Floats:
    """Mean return of the episodes that ended in each (edge, next edge]: (edges - 1,).

    Where none ended, that of the next bin with one, to whose episode the time belonged; at the end that of the last.
    NaN throughout if no episode ended at all.
    """
    places = np.searchsorted(edges, episodes[:, 0], side="left") - 1
    inside = (places >= 0) & (places < len(edges) - 1)
    counts = np.bincount(places[inside], minlength=len(edges) - 1)
    sums = np.bincount(places[inside], episodes[inside, 3], minlength=len(edges) - 1)
    filled = np.flatnonzero(counts)
    if not len(filled):
        return np.full(len(edges) - 1, np.nan)
    following = np.searchsorted(filled, np.arange(len(counts)))
    source = filled[np.minimum(following, len(filled) - 1)]
    return np.asarray(sums[source] / counts[source], np.float64)


def within(regimes: Sequence[Stretch], steps: float) -> list[Stretch]:
    """The regimes of the first `steps`, the last one cut off there."""
    return [
        Stretch(one.index, one.start, min(one.end, steps), one.values)
        for one in regimes
        if one.start < steps and one.end > one.start
    ]


def _plasticity(tables: Tables, steps: float) -> dict[str, float]:
    """Of each metric the mean over networks: at the end, and by how much a straight line through it changes."""
    found: dict[str, list[float]] = {}
    for metrics in tables.scalars.values():
        for name, metric in AT_END.items():
            series = metrics.get(metric)
            if series is None or not (series.steps <= steps).any():
                continue
            x, y = series.steps[series.steps <= steps], series.values[series.steps <= steps]
            late = x > (1 - END) * steps
            found.setdefault(name, []).append(float(y[late].mean() if late.any() else y[-1]))
            if name in OVER_TIME and len(x) > 1:
                found.setdefault(f"{name}_change", []).append(slope(x, y) * steps)
    return {name: float(np.mean(values)) for name, values in found.items()}
