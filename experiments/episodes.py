"""Episodes and regimes as they happened: what the table and the picture at the end are made from."""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from stable_baselines3.common.callbacks import BaseCallback

from agents import target_values


@dataclass
class Regime:
    """A stretch of time with one set of values. start: the environment step at which a sub-environment first met it."""

    index: int
    start: int
    values: dict[str, float]
    returns: list[float] = field(default_factory=list)


class EpisodeRecorder(BaseCallback):
    """Writes a row of `episodes.csv` for each finished episode and collects the regimes met so far.

    An episode belongs to the regime in force at its last step. `regimes` maps regime index -> `Regime`.
    """

    def __init__(self, path: Path):
        super().__init__()
        self.path = path
        self.regimes: dict[int, Regime] = {}
        self._file: TextIO | None = None

    def _on_training_start(self) -> None:
        self._file = self.path.open("w", newline="", encoding="utf-8")
        self._writer = csv.writer(self._file)
        self._writer.writerow(["step", "env", "regime", "return", "length"])

    def _on_step(self) -> bool:
        for index, info in enumerate(self.locals["infos"]):
            regime = self._meet(info)
            episode = info.get("episode")
            if episode is not None:
                regime.returns.append(float(episode["r"]))
                self._writer.writerow([self.num_timesteps, index, regime.index, float(episode["r"]), int(episode["l"])])
        return True

    def _on_rollout_end(self) -> None:
        if self._file is not None:
            self._file.flush()

    def close(self) -> None:
        """Close the file; also right after an exception, when SB3 calls no callback."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _meet(self, info: dict[str, Any]) -> Regime:
        index = int(info.get("nonstationary/regime", 0))
        if index not in self.regimes:
            start = self.num_timesteps if self.regimes else 0
            self.regimes[index] = Regime(index, start, target_values(info))
        return self.regimes[index]
