"""Recorded tables of changes: CSV files with rows `step,value`."""

from __future__ import annotations

import csv
import itertools
from pathlib import Path

from envs.parsing import parse_number, parse_steps


def read_table(path: str) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Read a recorded table: a CSV file with rows `step,value`, steps increasing; a header line `step,value` may lead.

    Returns:
        The steps (environment steps, all sub-environments together) and the values, both of length rows >= 1.

    Raises:
        ValueError: no such file, no rows, a row that is not two numbers, steps that do not increase.
    """
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as file:
            rows = [[cell.strip() for cell in row] for row in csv.reader(file) if any(cell.strip() for cell in row)]
    except OSError as error:
        raise ValueError(f"when: table cannot read {path!r}: {error.strerror or error}") from None
    if rows and rows[0] == ["step", "value"]:
        rows = rows[1:]
    if not rows:
        raise ValueError(f"when: table {path!r} has no rows; wanted: step,value")
    for row in rows:
        if len(row) != 2:
            raise ValueError(f"when: table {path!r} has the row {','.join(row)!r}; wanted: step,value")
    steps = tuple(parse_steps(f"a step in {path!r}", row[0], minimum=0) for row in rows)
    values = tuple(parse_number(f"a value in {path!r}", row[1]) for row in rows)
    for before, step in itertools.pairwise(steps):
        if step <= before:
            raise ValueError(f"the steps in {path!r} must increase, and {step} follows {before}")
    return steps, values
