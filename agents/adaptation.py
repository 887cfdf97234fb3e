"""How well an agent keeps what it learned, and how fast it learns anew: numbers from returns on frozen regimes.

returns: (trained, tested), the matrix R of the continual-learning literature. Row i is the agent as it was at the end
of regime i, column j a frozen copy of the world in regime j, the entry the mean return of its episodes. NaN stands for
what was not tested; a mean is of what was, and NaN where nothing was. The last row is the agent now, T its regime.

Sources: Lopez-Paz and Ranzato, Gradient Episodic Memory for Continual Learning, NeurIPS 2017, section 2 (average
accuracy, backward and forward transfer); Chaudhry et al., Riemannian Walk for Incremental Learning, ECCV 2018
(forgetting). They speak of accuracies and number tasks from 1; here are returns, and regimes from 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def average_return(returns: ArrayLike) -> float:
    """Mean of R[T, j] over the regimes j <= T met so far (Lopez-Paz and Ranzato's ACC)."""
    matrix = _matrix(returns)
    return mean(matrix[-1, : len(matrix)])


def forgetting(returns: ArrayLike) -> Floats:
    """For each regime j, max over i < T of R[i, j] minus R[T, j]: how much better it once was (Chaudhry et al.'s f).

    (tested,), NaN from j = T on. Their mean is the forgetting of the whole (F). The maximum is over all rows before the
    last, those before regime j came among them; below 0 where the agent is better than it ever was.
    """
    matrix = _matrix(returns)
    now = len(matrix) - 1
    before = np.where(np.isnan(matrix[:now]), -math.inf, matrix[:now]).max(axis=0, initial=-math.inf)
    lost = np.where(np.isfinite(before), before, math.nan) - matrix[now]
    return _first(now, lost)


def backward_transfer(returns: ArrayLike) -> Floats:
    """For each regime j, R[T, j] - R[j, j]: what later regimes did to it (Lopez-Paz and Ranzato's BWT is their mean).

    (tested,), NaN from j = T on.
    """
    matrix = _matrix(returns)
    own = np.full(matrix.shape[1], math.nan)
    diagonal = np.diagonal(matrix)
    own[: len(diagonal)] = diagonal
    return _first(len(matrix) - 1, matrix[-1] - own)


def forward_transfer(returns: ArrayLike, untrained: ArrayLike) -> Floats:
    """For each regime j > 0, R[j - 1, j] - b[j]: what training before it came did for it (Lopez-Paz and Ranzato's FWT).

    (tested,). untrained, b: (tested,), returns of the agent before its first step. Their FWT is the mean over regimes
    that were trained on; the one to come next, which they do not count, has its entry here too if it was tested.
    """
    matrix, gained = _matrix(returns), np.full(np.shape(untrained), math.nan)
    before = np.diagonal(matrix, offset=1)
    gained[1 : 1 + len(before)] = before - np.asarray(untrained, np.float64)[1 : 1 + len(before)]
    return gained


def recovery_steps(
    before: ArrayLike, after: ArrayLike, steps: ArrayLike, change: int, *, fraction: float = 0.9, window: int = 10
) -> float:
    """Environment steps from a change until the returns of training are back to `fraction` of what they were.

    The level before is the mean of the last `window` returns of the regime before (of fewer if there were fewer); it is
    reached at the end of the first episode at which the mean of the last `window` returns since the change is at least
    level - (1 - fraction) |level|, which for positive levels is fraction * level, and for negative ones means as much.
    So the least it can be is the time of `window` episodes. NaN: never, or there were no returns before. The definition
    is ours.

    before: returns of training episodes of the regime before, in the order in which they ended.
    after, steps: those since, and the environment steps at which they ended; change: that at which the world changed.
    """
    earlier, later = np.asarray(before, np.float64)[-window:], np.asarray(after, np.float64)
    if not len(earlier) or len(later) < window:
        return math.nan
    level = float(np.mean(earlier))
    running = np.lib.stride_tricks.sliding_window_view(later, window).mean(axis=1)
    there = np.flatnonzero(running >= level - (1 - fraction) * abs(level))
    return float(np.asarray(steps)[there[0] + window - 1] - change) if len(there) else math.nan


def mean(values: ArrayLike) -> float:
    """The mean of what is not NaN; NaN if nothing is."""
    known = np.asarray(values, np.float64)
    known = known[~np.isnan(known)]
    return float(known.mean()) if len(known) else math.nan


@dataclass(frozen=True)
class Adaptation:
    """All of a run. Regimes that were neither met nor tested, and what is not known of the others, are NaN.

    returns: (trained, tested), see above; the last row is the agent as it is now.
    untrained: (tested,), of the agent before its first step.
    fresh: (trained,), of an agent that was trained on that regime alone, frozen, for as many steps as it lasted.
    recovery: (trained,), see `recovery_steps`; NaN for the regime the run began in.
    """

    returns: Floats
    untrained: Floats
    fresh: Floats
    recovery: Floats

    @property
    def at_end(self) -> Floats:
        """(trained,), the diagonal: the return on each regime at its own end."""
        rows, columns = self.returns.shape
        ends = np.full(rows, math.nan)
        ends[: min(rows, columns)] = np.diagonal(self.returns)
        return ends

    @property
    def gap_to_fresh(self) -> Floats:
        """(trained,), return at the regime's end minus a fresh agent's: below 0 where the past is a burden.

        What could be carried over less what plasticity was lost; the metric `plasticity_gap` is another, of errors, and
        has the opposite sign. With its sign turned this is Chaudhry et al.'s intransigence, but for the agent compared
        with: theirs was trained on all tasks so far together.
        """
        return self.at_end - self.fresh

    def numbers(self) -> dict[str, float]:
        """One number for each of the ideas, means over the regimes; `recovered` is the share of changes recovered from.

        Of `recovery_steps` the mean is over those changes only; one not recovered from yet is one not recovered from.
        """
        changes = self.recovery[self._met][1:]
        return {
            "average_return": average_return(self.returns),
            "forgetting": mean(forgetting(self.returns)),
            "backward_transfer": mean(backward_transfer(self.returns)),
            "forward_transfer": mean(forward_transfer(self.returns, self.untrained)),
            "recovery_steps": mean(changes),
            "recovered": float(np.mean(~np.isnan(changes))) if len(changes) else math.nan,
            "gap_to_fresh": mean(self.gap_to_fresh),
        }

    @property
    def _met(self) -> NDArray[np.bool_]:
        return np.asarray(~np.isnan(self.returns).all(axis=1))


def _matrix(returns: ArrayLike) -> Floats:
    matrix = np.asarray(returns, np.float64)
    if matrix.ndim != 2 or not matrix.size:
        raise ValueError(f"returns must be a matrix (trained, tested), got the shape {matrix.shape}")
    return matrix


def _first(count: int, values: Floats) -> Floats:
    """The first `count` entries; NaN in place of the rest."""
    return np.where(np.arange(len(values)) < count, values, math.nan)
