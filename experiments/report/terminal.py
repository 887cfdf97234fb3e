"""The numbers in a terminal: a table for each environment, and below it what a reader should know."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich import box
from rich.table import Table

from experiments.analysis import Comparison, Measure, Method, Unreadable
from experiments.analysis.across import across
from experiments.report import sentences
from experiments.report.numbers import interval, number
from experiments.report.rows import cell


def tables(comparisons: Sequence[Comparison], unreadable: Sequence[Unreadable]) -> Iterator[Table | str]:
    """What to print, top to bottom."""
    for comparison in comparisons:
        yield ""
        yield _table(comparison)
        for _, text in sentences.findings(comparison):
            yield f"  {text}"
        for text in [*comparison.remarks, *sentences.cautions(comparison)]:
            yield f"  note: {text}"
        for name, why in sorted(comparison.left_out.items()):
            yield f"  not in the table: {name}: {why}"
    for chance in across(comparisons):
        between = f"[{chance.low:.2f}, {chance.high:.2f}]"
        yield (
            f"{chance.measure.title}: {chance.method} is better than {chance.baseline} with a chance of "
            f"{chance.probability:.2f} {between}, over {chance.environments} environments"
        )
    for one in unreadable:
        yield f"cannot be read: {one.name}: {one.reason}"


def _table(comparison: Comparison) -> Table:
    aggregate = {"iqm": "interquartile mean", "mean": "mean"}[comparison.options.aggregate]
    title = f"{comparison.name}, {comparison.steps:,} steps: {aggregate} over runs, 95 % interval"
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("measure")
    for method in comparison.methods:
        runs = len(method.compared)
        table.add_column(f"{method.name}\n{runs} run{'' if runs == 1 else 's'}", justify="right")
    for measure in comparison.measures:
        table.add_row(measure.title, *(_text(method, measure, comparison.baseline) for method in comparison.methods))
    return table


def _text(method: Method, measure: Measure, baseline: str | None) -> str:
    found, estimate = cell(method, measure, baseline), method.estimates.get(measure.name)
    if found is None or estimate is None:
        return "–"
    between = interval(estimate.low, estimate.high, measure)
    return f"{number(estimate.value, measure)} {found.mark}\n{between}".rstrip()
