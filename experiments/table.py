"""`progress.csv`: the scalars of a run, a row a step at which something was logged."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.logger import KVWriter, filter_excluded_keys

from experiments.growing import GrowingFile, Losses

FIRST = "time/total_timesteps"  # the column that says where a row belongs
Row = Mapping[str, str]


class ProgressTable(KVWriter):
    """Writes numbers and text as CSV; what is neither (histograms, figures, hyper-parameters) is left out.

    Columns are sorted, environment steps first. A new key widens the table: the file is written anew and replaces the
    old one at once. So the file depends on its rows alone, and a run that was cut back to a checkpoint and went on has
    the same one as a run that never stopped. rows: how many are in it.
    """

    def __init__(self, path: Path, losses: Losses):
        self.path = path
        self.rows = 0
        self._columns: list[str] = []
        self._file = GrowingFile(path, losses)

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        """A row for an environment step."""
        kept = filter_excluded_keys(key_values, key_excluded, "csv")
        row = {key: str(value) for key, value in kept.items() if isinstance(value, np.ScalarType) and value != ""}
        if not row:
            return
        if row.keys() <= set(self._columns):
            written = self._file.append(_text(self._columns, [row]), step)
        else:
            columns = _sorted({*self._columns, *row})
            written = self._file.replace(_table(columns, [*self._read(self.rows), row]), step)
            self._columns = columns if written else self._columns
        self.rows += written

    def resume(self, rows: int) -> None:
        """Cut the file back to its first rows, and to the columns that these have. Raises `OSError`."""
        kept = self._read(rows)
        if len(kept) < rows:
            self._file.losses.say(f"{self.path} has {len(kept):,} rows, and had {rows:,} at the checkpoint")
        self.rows, self._columns = len(kept), _sorted({key for row in kept for key, text in row.items() if text})
        if kept:
            self._file.begin(_table(self._columns, kept))
        else:
            self._file.discard()  # as a run that has logged nothing yet

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _read(self, rows: int) -> list[Row]:
        """The first so many rows, or as many as there are."""
        if not rows or not self.path.is_file():
            return []
        with self.path.open(newline="", encoding="utf-8") as file:
            return list(islice(csv.DictReader(file, restval=""), rows))


def _sorted(keys: Iterable[str]) -> list[str]:
    return sorted(keys, key=lambda key: (key != FIRST, key))


def _table(columns: Sequence[str], rows: Iterable[Row]) -> bytes:
    return _text(columns, [{column: column for column in columns}, *rows])


def _text(columns: Sequence[str], rows: Iterable[Row]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([row.get(column, "") for column in columns] for row in rows)
    return text.getvalue().encode()
