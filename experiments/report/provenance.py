"""What was run: settings, versions, commits, commands and hours, so that a reader can do it again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.analysis import Comparison, naming
from experiments.analysis.runs import STATES
from experiments.report.numbers import count, duration


@dataclass(frozen=True)
class Line:
    """A run, for the list of all of them. why: why it is not in the table; empty if it is."""

    name: str
    method: str
    seed: int
    steps: str
    state: str
    why: str
    command: str


def differing_settings(comparison: Comparison) -> list[tuple[str, list[str]]]:
    """Setting -> its value in each method, for those that are not the same in all."""
    found = [method.settings for method in comparison.methods]
    names = [name for name in naming.differing(found) if name != "methods" or len(found) > 1]
    if len(found) < 2:
        return []
    return [(name, [_cell(one, name) for one in found]) for name in names]


def _cell(settings: naming.Flat, name: str) -> str:
    if name == "methods":
        return ", ".join(settings["methods"]) or "none"
    return naming.show(settings[name]) if name in settings else "–"


def common_settings(comparison: Comparison) -> list[tuple[str, str]]:
    """Setting -> value, for those that are the same in all methods."""
    found = [method.settings for method in comparison.methods]
    apart = set(naming.differing(found)) | {"methods"}
    return [(name, naming.show(value)) for name, value in sorted(found[0].items()) if name not in apart]


def run_lines(comparison: Comparison) -> Iterator[Line]:
    """Every run of a comparison, also those that are in no number."""
    for method in comparison.methods:
        for one in method.runs:
            run = one.run
            yield Line(
                run.name,
                method.name,
                run.seed,
                f"{run.steps:,}",
                STATES.get(run.state, run.state),
                comparison.left_out.get(run.name, ""),
                run.command(),
            )


def versions(comparisons: Sequence[Comparison]) -> list[tuple[str, str]]:
    """Name -> version; where runs differ, each with the number of runs that had it."""
    seen: dict[str, Counter[str]] = {}
    for comparison in comparisons:
        for one in comparison.runs:
            for name, value in _facts(one.run.versions()):
                seen.setdefault(name, Counter())[value] += 1
    total = sum(len(comparison.runs) for comparison in comparisons)
    return [(name, _counted(values, total)) for name, values in seen.items()]


def _facts(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if not found:
        yield "versions", "not recorded"
        return
    commit = str(found.get("commit") or "not under version control")
    changed = " with uncommitted changes" if found.get("uncommitted_changes") else ""
    yield "commit", commit + changed
    for name in ("python", "platform", "torch_threads"):
        if name in found:
            yield name.replace("_", " "), str(found[name])
    for name, version in (found.get("packages") or {}).items():
        yield name, str(version or "not installed")


def _counted(values: Counter[str], total: int) -> str:
    if len(values) == 1 and sum(values.values()) == total:
        return next(iter(values))
    return "; ".join(f"{value} ({count(runs, 'run')})" for value, runs in values.most_common())


def effort(comparisons: Sequence[Comparison]) -> str:
    """Runs, steps and time in a line."""
    runs = [one for comparison in comparisons for one in comparison.runs]
    steps = sum(one.run.steps for one in runs)
    seconds = sum(one.seconds for one in runs)
    words = [count(len(runs), "run"), f"{steps:,} environment steps"]
    if seconds:
        words.append(f"{duration(seconds)} of training, as the runs' own clocks have it")
    return ", ".join(words)
