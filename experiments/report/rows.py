"""The tables of a page: method x measure, and each measure as a small picture of intervals."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from experiments.analysis import Comparison, Estimate, Measure, Method
from experiments.report import verdicts
from experiments.report.numbers import interval, number

WIDTH, HEIGHT, MARGIN = 240.0, 16.0, 6.0  # of the picture of an interval, in its own units


@dataclass(frozen=True)
class Cell:
    """A measure of a method. mark: how it compares with the baseline, in a character; verdict: the same in words."""

    value: str
    interval: str
    runs: int
    mark: str = ""
    kind: str = ""
    verdict: str = ""


@dataclass(frozen=True)
class Bar:
    """Where interval and value lie: places in a picture of `WIDTH`; None where there is none."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Row:
    """A method in the picture of a measure."""

    method: str
    index: int
    cell: Cell
    mean: str
    bar: Bar
    difference: str
    pairs: int
    probability: str


@dataclass(frozen=True, eq=False)
class Block:
    """A measure: its scale from end to end, where zero is on it if it is, and a row a method.

    caveats: what differences do not say, a sentence each.
    """

    measure: Measure
    rows: list[Row]
    left: str
    right: str
    zero: float | None
    caveats: list[str]


def cell(method: Method, measure: Measure, baseline: str | None) -> Cell | None:
    """A cell of the table; None where nothing was measured."""
    estimate = method.estimates.get(measure.name)
    if estimate is None:
        return None
    between = interval(estimate.low, estimate.high, measure) if estimate.runs > 1 else "1 run"
    mark, kind, verdict = _mark(method, measure, baseline)
    return Cell(number(estimate.value, measure), between, estimate.runs, mark, kind, verdict)


def _mark(method: Method, measure: Measure, baseline: str | None) -> tuple[str, str, str]:
    kind = verdicts.kind(method, measure)
    if not kind:
        return "", "", ""
    up = method.differences[measure.name].value > 0
    where = f"{'above' if up else 'below'} {baseline}: the interval of the difference by seed excludes 0"
    verdict = where if kind == "other" else f"{kind}, {where}"
    return "▲" if up else "▼", kind, f"{verdict}. {verdicts.caveat(method, measure, baseline)}".rstrip(". ")


def blocks(comparison: Comparison) -> Iterator[Block]:
    """A block for each measure."""
    for measure in comparison.measures:
        found = [(place, one) for place, one in enumerate(comparison.methods) if measure.name in one.estimates]
        estimates = [one.estimates[measure.name] for _, one in found]
        low, high = _scale(estimates)

        def at(value: float, low: float = low, high: float = high) -> float:
            return round(MARGIN + (value - low) / (high - low) * (WIDTH - 2 * MARGIN), 2)

        rows = [
            _row(comparison, place, one, measure, at(one.estimates[measure.name].value), at) for place, one in found
        ]
        zero = at(0.0) if low <= 0 <= high else None
        caveats = [verdicts.caveat(one, measure, comparison.baseline) for _, one in found]
        yield Block(measure, rows, number(low, measure), number(high, measure), zero, [*filter(None, caveats)])


def _row(comparison: Comparison, place: int, method: Method, measure: Measure, value: float, at: object) -> Row:
    estimate = method.estimates[measure.name]
    bar = Bar(value, None, None)
    if math.isfinite(estimate.low) and callable(at):
        bar = Bar(value, at(estimate.low), at(estimate.high))
    difference = method.differences.get(measure.name)
    shown, pairs, probability = "", 0, ""
    if difference is not None and difference.pairs:
        shown = number(difference.value, measure, sign=True)
        if difference.pairs > 1:
            shown += " " + interval(difference.low, difference.high, measure, sign=True)
        pairs = difference.pairs
    if difference is not None and measure.better and verdicts.start(method, measure) is None:
        probability = f"{difference.probability:.2f}"
        if math.isfinite(difference.probability_low):
            probability += f" [{difference.probability_low:.2f}, {difference.probability_high:.2f}]"
    found = cell(method, measure, comparison.baseline)
    assert found is not None
    mean = f"{number(estimate.mean, measure)} {interval(estimate.mean_low, estimate.mean_high, measure)}".rstrip()
    return Row(method.name, place, found, mean, bar, shown, pairs, probability)


def _scale(estimates: Sequence[Estimate]) -> tuple[float, float]:
    ends = [end for one in estimates for end in (one.low, one.value, one.high) if math.isfinite(end)]
    low, high = min(ends), max(ends)
    if low == high:
        low, high = low - max(abs(low) * 0.1, 1e-9), high + max(abs(high) * 0.1, 1e-9)
    return low, high
