"""When the world changed, for all runs of a comparison together: one set of moments, or none that they share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from experiments.analysis.comparison import Reduced
from experiments.analysis.reading import Stretch

TOGETHER = 0.05  # of the longest regime: moments that lie closer are one, as a change waits for an episode's end

SEEN = 0.99  # of a run: a change after that has no time to matter


@dataclass(frozen=True)
class Period:
    """A regime that all runs went through at the same time. values: in words; empty if they differ between runs."""

    index: int
    start: float
    end: float
    values: str
    spread: str


@dataclass(frozen=True)
class Changes:
    """periods: empty if the runs do not share their moments. most: regimes of the run with the most."""

    periods: tuple[Period, ...]
    most: int
    values_shared: bool

    @property
    def moments(self) -> list[float]:
        """Environment steps at which the world changed."""
        return [one.start for one in self.periods[1:]]


def changes(runs: Sequence[Reduced]) -> Changes:
    """Line up the regimes of runs, as far as each of them got."""
    met = [kept for one in runs if (kept := [r for r in one.regimes if r.start < SEEN * one.run.steps or not r.start])]
    most = max(map(len, met), default=0)
    longest = float(np.median([max(one.end - one.start for one in regimes) for regimes in met])) if met else 0.0
    periods = []
    for index in range(most):
        here = [regimes[index] for regimes in met if len(regimes) > index]
        starts, ends = (np.array([getattr(one, name) for one in here]) for name in ("start", "end"))
        whole = [len(regimes) > index + 1 for regimes in met if len(regimes) > index]
        if np.ptp(starts) > TOGETHER * longest or len({one.index for one in here}) > 1:
            return Changes((), most, False)
        end = float(np.median(ends[whole])) if any(whole) else float(ends.max())
        periods.append(Period(here[0].index, float(np.median(starts)), end, *_values(here)))
    return Changes(tuple(periods), most, all(one.values for one in periods if one.values or one.spread))


def _values(stretches: Sequence[Stretch]) -> tuple[str, str]:
    """The values in words, where all agree; else between what they lie."""
    known = [one.values for one in stretches if one.values]
    if not known:
        return "", ""
    if all(values == known[0] for values in known):
        return ", ".join(f"{name} {_short(text)}" for name, text in known[0].items()), ""
    parts = []
    for name in known[0]:
        try:
            numbers = [float(values[name]) for values in known if name in values]
        except ValueError:  # vectors, and values that drifted, are written in words
            parts.append(f"{name} differs by seed")
            continue
        parts.append(f"{name} {min(numbers):.3g} to {max(numbers):.3g}, by seed")
    return "", "; ".join(parts)


def _short(text: str) -> str:
    try:
        return f"{float(text):.3g}"
    except ValueError:
        return text if len(text) <= 24 else text[:23] + "…"
