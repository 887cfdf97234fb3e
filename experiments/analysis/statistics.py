"""Aggregates over runs and how sure they are: pure functions of arrays.

After Agarwal et al., "Deep reinforcement learning at the edge of the statistical precipice" (2021), and their package
rliable: tests hold these functions to its numbers. Scores come in strata, one array a task; runs are drawn anew within
their task. Unlike rliable, tasks may have unequal numbers of runs. Random draws are this module's own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
Statistic = Callable[[Floats, int], Floats]  # (values, axis) -> values without that axis
LEVEL = 0.95
RESAMPLES = 2000
AT_ONCE = 4_000_000  # numbers drawn at once: 32 MB


def interquartile_mean(scores: ArrayLike, axis: int | None = None) -> Floats:
    """The mean of the middle half: a quarter of the scores, rounded down, is cut off at each end. axis None: of all."""
    result: Floats = np.asarray(scipy.stats.trim_mean(np.asarray(scores, float), 0.25, axis=axis), dtype=np.float64)
    return result


def mean(scores: ArrayLike, axis: int | None = None) -> Floats:
    """The mean along an axis, or of all scores."""
    result: Floats = np.asarray(np.mean(np.asarray(scores, float), axis=axis), dtype=np.float64)
    return result


def stratified_bootstrap_interval(
    strata: Sequence[ArrayLike],
    statistic: Statistic = interquartile_mean,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[Floats, Floats]:
    """The percentile interval of a statistic of all scores together.

    strata: one array for each task, (runs, ...) with the same further dimensions; runs are resampled within their task.
    statistic: taken over all runs. Returns the lower and the upper end, of the shape of the further dimensions; NaN
    where no task has two runs, as nothing can then be said.
    """
    arrays = [np.asarray(one, np.float64) for one in strata]
    scores = np.concatenate(arrays)
    if max(len(one) for one in arrays) < 2:
        nothing = np.full(scores.shape[1:], np.nan)
        return nothing, nothing
    drawn = resampled([len(one) for one in arrays], resamples, seed)
    step = max(1, AT_ONCE // scores.size)
    found = [statistic(scores[drawn[first : first + step]], 1) for first in range(0, resamples, step)]
    return percentile_interval(np.concatenate(found), level)


def paired_difference(first: ArrayLike, second: ArrayLike, level: float = LEVEL, seed: int = 0) -> tuple[float, ...]:
    """Mean of first - second and its bootstrap interval over pairs: (mean, low, high). Both (pairs,)."""
    differences = np.asarray(first, np.float64) - np.asarray(second, np.float64)
    low, high = stratified_bootstrap_interval([differences], mean, level, seed=seed)
    return float(differences.mean()), float(low), float(high)


def probability_of_improvement(first: Sequence[ArrayLike], second: Sequence[ArrayLike]) -> float:
    """How often a run of the first method is better than one of the second, ties counting half; averaged over tasks.

    first, second: for each task the scores of the runs, (runs,). The Mann-Whitney statistic over all pairs of runs.
    """
    tasks = [
        scipy.stats.mannwhitneyu(one, other, method="asymptotic").statistic / (len(one) * len(other))
        for one, other in zip(map(np.asarray, first), map(np.asarray, second), strict=True)
    ]
    return float(np.mean(tasks))


def probability_of_improvement_interval(
    first: Sequence[ArrayLike],
    second: Sequence[ArrayLike],
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float]:
    """Its stratified bootstrap interval, the runs of both methods drawn independently; NaN if no task has two runs."""
    total, most = np.zeros(resamples), 0
    for task, pair in enumerate(zip(first, second, strict=True)):
        one, other = (np.asarray(scores, np.float64) for scores in pair)
        better = np.sign(one[:, None] - other) / 2 + 0.5  # (runs, runs): 1, a half for a tie, or 0
        rows = _counts(len(one), resamples, seed + 2 * task)
        columns = _counts(len(other), resamples, seed + 2 * task + 1)
        total += np.einsum("ri,ij,rj->r", rows, better, columns, optimize=True)
        most = max(most, len(one), len(other))
    if most < 2:
        return np.nan, np.nan
    low, high = percentile_interval(total / len(first), level)
    return float(low), float(high)


def slope(positions: ArrayLike, values: ArrayLike) -> float:
    """Of the least-squares line through the points whose value is known; NaN for fewer than two."""
    x, y = np.asarray(positions, np.float64), np.asarray(values, np.float64)
    known = np.isfinite(x) & np.isfinite(y)
    x, y = x[known], y[known]
    if len(x) < 2 or np.ptp(x) == 0:
        return np.nan
    away = x - x.mean()
    return float(away @ (y - y.mean()) / (away @ away))


def percentile_interval(estimates: Floats, level: float) -> tuple[Floats, Floats]:
    """The two ends between which `level` of the estimates lie, along the first axis."""
    low, high = np.quantile(estimates, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return np.asarray(low, np.float64), np.asarray(high, np.float64)


def resampled(sizes: Sequence[int], resamples: int, seed: int) -> Indices:
    """Which runs are drawn, each stratum from its own: (resamples, runs of all strata)."""
    generator = np.random.default_rng(seed)
    begins = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    parts = [
        begin + generator.integers(size, size=(resamples, size)) for begin, size in zip(begins, sizes, strict=True)
    ]
    return np.concatenate(parts, axis=1)


def _counts(runs: int, resamples: int, seed: int) -> Floats:
    """The share of the draws that falls to each run: (resamples, runs)."""
    counts = np.random.default_rng(seed).multinomial(runs, np.full(runs, 1 / runs), size=resamples)
    return np.asarray(counts / runs, np.float64)
