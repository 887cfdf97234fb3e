"""What came out: the table in the terminal, and docs/data/performance.json, which keeps what was measured before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.rows import ROWS, Result, Row
from benchmarks.turns import ROOT

RESULT = ROOT / "docs" / "data" / "performance.json"
WORDS = {"aim": "[green]aim reached[/]", "must": "[yellow]must reached[/]", "missed": "[red]missed[/]", "none": ""}


class OtherConditions(RuntimeError):
    """Numbers of other versions or another machine cannot stand in one table."""


def merged(path: Path, conditions: dict[str, Any], whole: bool) -> dict[str, Any]:
    """What new numbers are added to: nothing, or with `whole` false the table in `path`.

    Raises `OtherConditions` if that was measured on another machine or with other versions.
    """
    fresh = conditions | {"rows": {}, "scaling": {}}
    if whole or not path.exists():
        return fresh
    old: dict[str, Any] = json.loads(path.read_text("utf-8"))
    for name in ("machine", "versions"):
        if old[name] != conditions[name]:
            raise OtherConditions(f"the other rows of {path.name} are of another {name}: measure all of them")
    return fresh | {name: old[name] for name in ("rows", "scaling")}


def write(path: Path, found: dict[str, Any]) -> None:
    """Rows in the table's order; whole at any time."""
    ordered = found | {"rows": {name: found["rows"][name] for name in ROWS if name in found["rows"]}}
    path.parent.mkdir(parents=True, exist_ok=True)
    other = path.with_suffix(".new")
    other.write_text(json.dumps(ordered, indent=2) + "\n", "utf-8")
    other.replace(path)


def table(rows: dict[str, Result]) -> Table:
    """For a terminal: every row that was measured, in order."""
    made = Table(caption="Medians over the turns, with quartiles.", caption_justify="left")
    for column in ("what", "against", "measured", "figures", "must", "aim", ""):
        made.add_column(column, justify="right" if column in ("measured", "must", "aim") else "left")
    for name, row in ROWS.items():
        if name in rows:
            made.add_row(*cells(row, rows[name]), WORDS[row.verdict(rows[name]["value"])])
    return made


def cells(row: Row, numbers: Result) -> list[str]:
    """What a line says before its verdict: measured is the median with its quartiles."""
    spread = f"{row.written(numbers['value'])} ({row.written(numbers['low'])} to {row.written(numbers['high'])})"
    return [row.what, row.peer, spread, figures(numbers), row.written(row.must), row.written(row.aim)]


def figures(numbers: Result) -> str:
    """What a ratio was worked out from, where it was told."""
    if "ours_steps" in numbers:
        ours, peer = (_middle(numbers[name]) for name in ("ours_steps", "peer_steps"))
        return f"{ours:,.0f} to {peer:,.0f} steps/s"
    if "ours_mib" in numbers:
        return f"{_middle(numbers['ours_mib']):,.0f} to {_middle(numbers['peer_mib']):,.0f} MiB"
    if "with_seconds" in numbers:
        return f"{1e3 * _middle(numbers['with_seconds']):,.0f} to {1e3 * _middle(numbers['without_seconds']):,.0f} ms"
    if "extra_us" in numbers:
        return f"{numbers['extra_us']:.2f} of {numbers['step_us']:.0f} us"
    return ""


def _middle(number: dict[str, float] | float) -> float:
    return number["value"] if isinstance(number, dict) else number
