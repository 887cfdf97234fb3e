"""Methods over several environments, whose returns have no common scale: how often each beats the baseline."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from experiments.analysis.comparison import Comparison, Method
from experiments.analysis.measures import MEASURES, Measure
from experiments.analysis.statistics import (
    Floats,
    probability_of_improvement,
    probability_of_improvement_interval,
)

ACROSS = ("mean_return", "last_regimes")


@dataclass(frozen=True)
class Chance:
    """The probability that a run of a method beats one of the baseline in the same environment, averaged over these."""

    method: str
    baseline: str
    measure: Measure
    probability: float
    low: float
    high: float
    environments: int


def across(comparisons: Sequence[Comparison]) -> Iterator[Chance]:
    """For each method that stands beside the same baseline in two environments or more; methods go by their names."""
    pairs: dict[tuple[str, str], list[tuple[Method, Method]]] = {}
    for comparison in comparisons:
        against = {method.name: method for method in comparison.methods}
        if comparison.baseline is not None:
            base = against.pop(comparison.baseline)
            for method in against.values():
                pairs.setdefault((method.name, base.name), []).append((method, base))
    for (name, baseline), found in sorted(pairs.items()):
        for measure in ACROSS:
            scores = [(_scores(method, measure), _scores(base, measure)) for method, base in found]
            tasks = [(one, other) for one, other in scores if len(one) and len(other)]
            if len(tasks) > 1:
                first, second = zip(*tasks, strict=True)
                low, high = probability_of_improvement_interval(first, second)
                value = probability_of_improvement(first, second)
                yield Chance(name, baseline, MEASURES[measure], value, low, high, len(tasks))


def _scores(method: Method, measure: str) -> Floats:
    return np.array([one.measures[measure] for one in method.compared if measure in one.measures])
