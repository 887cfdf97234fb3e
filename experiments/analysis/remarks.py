"""What a reader must know before believing a number: runs of other lengths, failed, missing, or twice there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from experiments.analysis.runs import RunFolder

if TYPE_CHECKING:
    from experiments.analysis.comparison import Method


def remarks(
    methods: Sequence[Method], steps: int, runs: Mapping[str, Sequence[RunFolder]], enough: float
) -> Iterator[str]:
    """A sentence for each thing that is unequal or missing.

    steps: compared; runs: of each method, those that could not be read too; enough: share of the steps that suffices.
    """
    lengths = sorted({run.steps for group in runs.values() for run in group if run.state == "finished"})
    everyone = [run for group in runs.values() for run in group]
    if lengths and lengths[-1] > steps / enough:
        longer = sum(run.steps > steps / enough for run in everyone)
        shortest = [name for name, group in runs.items() if max(run.steps for run in group) == steps]
        reason = f", as no run of {' or '.join(shortest)} got further" if shortest else ""
        yield (
            f"The table compares the first {steps:,} steps{reason}; {longer} of {len(everyone)} runs went on for "
            f"longer, up to step {lengths[-1]:,}."
        )
    for method in methods:
        compared = method.compared
        failed = [one.run.name for one in method.runs if one.run.state == "failed" and not one.compared]
        if failed:
            yield (
                f"{len(failed)} of {len(method.runs)} runs of {method.name} failed and are not in its numbers, which "
                f"are those of runs that went well: {', '.join(failed)}."
            )
        if not compared:
            yield f"No run of {method.name} got to step {steps:,}: it has no row in the table."
        worlds = [one.run.world for one in compared]
        if len(set(worlds)) < len(worlds):
            twice = sorted({one.run.seed for one in compared if worlds.count(one.run.world) > 1})
            yield (
                f"{method.name} has several runs of seed {', '.join(map(str, twice))}; all count, and differences by "
                "seed take the first."
            )
    every = {run.world for run in everyone}
    for name, group in runs.items():
        if lacking := sorted({seed for seed, _ in every - {run.world for run in group}}):
            yield f"{name} has no run of seed {', '.join(map(str, lacking))}, which other methods have."
