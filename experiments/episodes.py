"""Episodes and regimes as they happened: what the table and the picture at the end are made from."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback

from agents import target_values
from experiments.growing import GrowingFile, Losses

HEADER = b"step,env,regime,return,length\n"
SECONDS = 1.0  # at least, from one write to the next


@dataclass
class Regime:
    """A stretch of time with one set of values, drifts aside.

    start: the environment step at which a sub-environment first met it; values: those in force then.
    spans: of what drifted, the lowest and the highest value seen.
    """

    index: int
    start: int
    values: dict[str, float]
    returns: list[float] = field(default_factory=list)
    spans: dict[str, tuple[float, float]] = field(default_factory=dict)

    def see(self, values: Mapping[str, float]) -> None:
        """Take note of the values in force at a step."""
        if values != self.values:
            for name, value in values.items():
                low, high = self.spans.get(name, (self.values.get(name, value),) * 2)
                if not low == value == high:
                    self.spans[name] = min(low, value), max(high, value)

    def told(self, name: str, show: Callable[[float], str]) -> str:
        """A target's value as `show` writes it, or from what to what it drifted."""
        return " to ".join(map(show, self.spans.get(name, (self.values[name],))))


class EpisodeRecorder(BaseCallback):
    """Writes a row of `episodes.csv` for each finished episode and collects the regimes met so far.

    An episode belongs to the regime in force at its last step. `regimes` maps regime index -> `Regime`.
    losses: where it notes what could not be written.
    """

    def __init__(self, path: Path, losses: Losses | None = None):
        super().__init__()
        self.path = path
        self.regimes: dict[int, Regime] = {}
        self._file = GrowingFile(path, losses or Losses(), HEADER)
        self._rows: list[tuple[int, int, int, float, int]] = []  # not yet in the file
        self._written = 0.0  # when there was a write, in seconds

    def _on_training_start(self) -> None:
        self._write()

    def _on_step(self) -> bool:
        for index, info in enumerate(self.locals["infos"]):
            regime = self._meet(info)
            episode = info.get("episode")
            if episode is not None:
                total = float(episode["r"])
                regime.returns.append(total)
                self._rows.append((self.num_timesteps, index, regime.index, total, int(episode["l"])))
        return True

    def _on_rollout_end(self) -> None:
        if self._rows and time.monotonic() - self._written >= SECONDS:
            self._write()

    def close(self) -> None:
        """Write what there is and close the file; also right after an exception, when SB3 calls no callback."""
        if self._rows:
            self._write()
        self._file.close()

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint of a run must keep: how far the file goes, and the regimes; the returns are in the file."""
        self._write()
        regimes = [(one.index, one.start, dict(one.values), dict(one.spans)) for one in self.regimes.values()]
        return {"bytes": self._file.size, "regimes": regimes}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken: cut off what was written later. Raises `OSError`."""
        self.regimes = {
            index: Regime(index, start, values, spans=spans) for index, start, values, spans in state["regimes"]
        }
        self._rows = []
        self._file.cut(state["bytes"])
        content = self.path.read_bytes()
        lines = content[: content.rfind(b"\n") + 1]
        self._file.cut(len(lines))  # all of it, but for a file that someone else has shortened
        for row in csv.DictReader(io.StringIO(lines.decode())):
            self.regimes[int(row["regime"])].returns.append(float(row["return"]))

    def _write(self) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(self._rows)
        since = self._rows[0][0] if self._rows else None
        self._file.append(text.getvalue().encode(), self.num_timesteps, len(self._rows), since=since)
        self._rows.clear()
        self._written = time.monotonic()

    def _meet(self, info: dict[str, Any]) -> Regime:
        index, values = int(info.get("nonstationary/regime", 0)), target_values(info)
        if index not in self.regimes:
            start = self.num_timesteps if self.regimes else 0
            self.regimes[index] = Regime(index, start, values)
        self.regimes[index].see(values)
        return self.regimes[index]
