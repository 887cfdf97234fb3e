"""Write docs/performance.md from docs/data/performance.json, as `make bench` does: python docs/make_performance.py."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(1, str(Path(__file__).parent.parent))
from prose import inline, table

from benchmarks.learning_parity import BACKENDS, TASKS
from benchmarks.report import cells
from benchmarks.rows import ROWS
from benchmarks.scaling import AXES

DOCS = Path(__file__).parent
VERDICTS = {"aim": "reached", "must": "the must is reached, the aim is not", "missed": "**missed**", "none": ""}


def page() -> str:
    """The page as Markdown."""
    found: dict[str, Any] = json.loads((DOCS / "data" / "performance.json").read_text("utf-8"))
    text = (DOCS / "parts" / "performance.md").read_text("utf-8")
    parts = {"table": _table, "missed": _missed, "parity": _parity, "scaling": _scaling, "conditions": _conditions}
    for name, write in parts.items():
        text = text.replace(f"<!-- {name} -->", write(found))
    return text


def _table(found: dict[str, Any]) -> str:
    head = ["what", "against", "measured (quartiles)", "figures", "must", "aim", "so"]
    return table(
        head,
        [
            [*cells(row, found["rows"][name]), VERDICTS[row.verdict(found["rows"][name]["value"])]]
            for name, row in ROWS.items()
            if name in found["rows"]
        ],
    )


def _missed(found: dict[str, Any]) -> str:
    """What was promised and is not so, and what was not measured."""
    sentences = []
    for name, row in ROWS.items():
        if name not in found["rows"]:
            sentences.append(f"Not measured: {row.what}, against {row.peer}.")
        elif row.verdict(value := found["rows"][name]["value"]) == "missed":
            against = row.peer if row.share else f"against {row.peer}"
            sentences.append(
                f"Missed: {row.what}, {against}, is at {row.written(value)}; {row.written(row.must)} is due."
            )
    if not sentences:
        return "Every must of the table is reached."
    return "\n".join(f"- {sentence}" for sentence in sentences)


def _scaling(found: dict[str, Any]) -> str:
    rows = []
    for axis, (title, _) in AXES.items():
        for value, point in found["scaling"].get(axis, {}).items():
            ours, peer = (point[who]["value"] for who in ("ours", "peer"))
            rows.append([title, value, f"{ours:,.0f}", f"{peer:,.0f}", f"{ours / peer:.2f} x"])
    if not rows:
        return "Not measured."
    return table(["what is varied", "", "ours, steps a second", "SB3 PPO", "ratio of the medians"], rows)


def _parity(found: dict[str, Any]) -> str:
    """Returns of stock and faster runs; from a file of its own."""
    compared = json.loads((DOCS / "data" / "learning_parity.json").read_text("utf-8"))["comparison"]
    rows = []
    for task, (title, steps, seeds) in TASKS.items():
        for part, numbers in compared[task].items():
            stock, fast = (f"{mean:,.0f} ± {deviation:,.0f}" for mean, deviation in (numbers[who] for who in BACKENDS))
            low, high = numbers["interval"]
            name, difference = f"{title}, {steps:,} steps, {seeds} seeds", f"{numbers['difference']:+,.0f}"
            rows.append([name, part, stock, fast, difference, f"{low:+,.0f} to {high:+,.0f}"])
    return table(["", "mean return of the", "stock (± deviation)", "by hand", "difference", "interval"], rows)


def _conditions(found: dict[str, Any]) -> str:
    machine = found["machine"]
    told = [f"{machine['processor']}, {machine['cores']} cores, load {found['load_before']} before it began"]
    if "products" in machine:
        told.append(f"products of matrices in ours: {machine['products']}")
    for who, versions in found["versions"].items():
        told.append(f"{who}: " + ", ".join(f"{name} {version}" for name, version in versions.items()))
    return inline(f"Measured on {found['date']} on " + "; ".join(told) + ".")


if __name__ == "__main__":
    (DOCS / "performance.md").write_text(page(), "utf-8")
