"""Reading back what a run wrote: its scalars and its episodes, as arrays."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from experiments import folder as files

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Series:
    """One scalar over time. steps: environment steps, increasing; values: same length."""

    steps: Floats
    values: Floats

    def __len__(self) -> int:
        return len(self.steps)


class History:
    """The scalars of `progress.csv` by TensorBoard tag, and the episodes of `episodes.csv`."""

    def __init__(self, folder: Path):
        self._rows = _rows(folder / files.PROGRESS)
        self.episodes = _rows(folder / files.EPISODES)

    def scalar(self, tag: str) -> Series:
        """A tag's values at the steps where it was written; empty if it never was."""
        points = [(row["time/total_timesteps"], row[tag]) for row in self._rows if row.get(tag)]
        array = np.array(points, dtype=np.float64).reshape(-1, 2)
        return Series(array[:, 0], array[:, 1])

    def networks(self) -> list[str]:
        """Names of the networks that were measured, such as pi and vf."""
        found = [re.match(r"plasticity/([^/]+)/", tag) for tag in (self._rows[0] if self._rows else {})]
        return sorted({match[1] for match in found if match})

    def returns(self) -> Series:
        """Every finished episode's return, at the step at which it ended."""
        points = [(row["step"], row["return"]) for row in self.episodes]
        array = np.array(points, dtype=np.float64).reshape(-1, 2)
        return Series(array[:, 0], array[:, 1])


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
