"""Whether a difference that was seen is for better or for worse, and where it would mislead to say so.

A trend over regimes is a slope: a method that learns little in the first regime has little to lose, so its trend lies
above that of a method that learns much and loses some of it. Such a trend is called neither better nor worse, unless
the last regimes differ from the baseline's the same way.
"""

from __future__ import annotations

from experiments.analysis import Difference, Measure, Method
from experiments.report.numbers import interval, number

TREND, FIRST, LAST = "regime_slope", "first_regime", "last_regimes"


def kind(method: Method, measure: Measure) -> str:
    """better, worse, or other where the measure has no better side or the start may be the reason; nothing unseen."""
    difference = method.differences.get(measure.name)
    if difference is None or not difference.seen:
        return ""
    if start(method, measure) is not None:
        return "other"
    return {1: "better", -1: "worse", 0: "other"}[measure.better * (1 if difference.value > 0 else -1)]


def start(method: Method, measure: Measure) -> Difference | None:
    """The difference of the first regime, where the trend may come from that alone; None where it does not."""
    trend, first, last = (method.differences.get(name) for name in (TREND, FIRST, LAST))
    if measure.name != TREND or trend is None or first is None or not (trend.seen and first.seen):
        return None
    ends_so = last is not None and last.seen and (last.value > 0) == (trend.value > 0)
    return None if ends_so or (first.value > 0) == (trend.value > 0) else first


def caveat(method: Method, measure: Measure, baseline: str | None) -> str:
    """A sentence on what a seen trend does not say; nothing where it can be taken as it is."""
    first = start(method, measure)
    if first is None:
        return ""
    word, side, stake = ("worse", "above", "more") if first.value > 0 else ("better", "already below", "less")
    by = f"{number(first.value, sign=True)} {interval(first.low, first.high, sign=True)}"
    return (
        f"The trend does not say that {method.name} is {word}: its first regime is {side} {baseline}'s (mean "
        f"difference by seed {by}), so it has {stake} to lose."
    )
