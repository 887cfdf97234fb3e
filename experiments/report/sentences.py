"""What the intervals support, in words: no more than that."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from experiments.analysis import MEASURES, Comparison, Difference, Measure, Method
from experiments.analysis.changes import Changes
from experiments.analysis.comparison import FEW
from experiments.report import verdicts
from experiments.report.numbers import count, interval, listed, number

TOLD = ("mean_return", "last_regimes", "regime_slope", "dead_units", "rank")  # measures that get a sentence


def question(comparison: Comparison, changes: Changes) -> str:
    """What the runs can answer, from what differs between them."""
    agents = sorted({str(one.run.config["agent"]["algorithm"]).upper() for one in comparison.runs})
    where = f"on {comparison.name}"
    if changes.most > 1:
        where += f", a world that changes {count(changes.most - 1, 'time')} within {comparison.steps:,} steps"
    names = [method.name for method in comparison.methods]
    if comparison.baseline is None:
        return f"How does {listed(agents)} with {names[0]} fare {where}?"
    others = [name for name in names if name != comparison.baseline]
    shown = others if len(others) <= 6 else [*others[:5], f"{len(others) - 5} others"]
    than = f"{listed(shown)} than with {_plain(comparison)}"
    return f"Does {listed(agents)} learn better, and go on learning, with {than} {where}?"


def _plain(comparison: Comparison) -> str:
    return "no method" if comparison.baseline == "none" else str(comparison.baseline)


def findings(comparison: Comparison) -> Iterator[tuple[str, str]]:
    """What became of each method against the baseline: (kind, text), the kind being seen, unseen or few.

    A sentence for each difference that was seen, and one for all that were not.
    """
    for method in comparison.methods:
        told = {name: one for name, one in method.differences.items() if name in TOLD and one.pairs}
        both = f"{method.name} and {comparison.baseline}"
        for name in TOLD:
            if name in told and told[name].seen:
                yield "seen", _seen(method, comparison, MEASURES[name], told[name])
        unseen = [_brief(MEASURES[name], told[name]) for name in TOLD if name in told and _unseen(told[name])]
        if unseen:
            yield "unseen", f"Not seen: no difference between {both} can be seen in {'; '.join(unseen)}."
        few = [name for name in TOLD if name in told and told[name].pairs < FEW]
        if few:
            seeds = count(min(told[name].pairs for name in few), "seed")
            parts = "; ".join(_brief(MEASURES[name], told[name]) for name in few)
            yield (
                "few",
                f"Too early to say: {both} have {seeds} in common, and {FEW} are needed to conclude anything. "
                f"Differences so far: {parts}.",
            )


def _seen(method: Method, comparison: Comparison, measure: Measure, difference: Difference) -> str:
    side = "above" if difference.value > 0 else "below"
    kind = verdicts.kind(method, measure)
    value = number(difference.value, measure, sign=True)
    between = interval(difference.low, difference.high, measure, sign=True)
    return (
        f"{measure.title[0].upper()}{measure.title[1:]}: {method.name} is {side} {comparison.baseline}"
        f"{'' if kind == 'other' else f', which is {kind}'} (mean difference by seed {value}, 95 % interval {between} "
        f"over {count(difference.pairs, 'seed')}, excludes 0). "
        f"{verdicts.caveat(method, measure, comparison.baseline)}"
    ).rstrip()


def _unseen(difference: Difference) -> bool:
    return difference.pairs >= FEW and not difference.seen


def _brief(measure: Measure, difference: Difference) -> str:
    between = interval(difference.low, difference.high, measure, sign=True)
    return f"{measure.title} {number(difference.value, measure, sign=True)} {between}".rstrip()


def cautions(comparison: Comparison) -> list[str]:
    """What a reader should know about the intervals of this comparison."""
    found = []
    few = [f"{one.name} ({len(one.compared)})" for one in comparison.methods if 0 < len(one.compared) < FEW]
    if few:
        found.append(
            f"Fewer than {FEW} runs: {', '.join(few)}. Their intervals are rough and mostly too narrow; "
            "one run has none."
        )
    tested = sum(1 for one in comparison.methods for name in TOLD if name in one.differences)
    if tested > 1 and any(d.pairs >= FEW for one in comparison.methods for d in one.differences.values()):
        found.append(
            f"{tested} differences are told of, each with an interval of its own: even if there were none at all, "
            "about one in twenty such intervals would exclude 0, and more with few seeds."
        )
    return found


def about_changes(changes: Changes) -> str:
    """What the marks in the figures are, or why there are none."""
    if changes.most < 2:
        return "The world never changed in these runs."
    if not changes.periods:
        return "The world changed at different moments in different runs, so none is marked."
    same = "to the same values in all runs" if changes.values_shared else "to values that differ between seeds"
    return f"Lines and shades mark the changes of the world: {len(changes.moments)}, at the same steps and {same}."


def state_counts(states: Sequence[str]) -> str:
    """3 finished, 1 failed."""
    return ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
