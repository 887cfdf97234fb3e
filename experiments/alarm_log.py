"""Alarms of a run: printed when they are raised, and kept in its folder."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from stable_baselines3.common.callbacks import BaseCallback

from agents import PlasticityMonitor

MOST = 8  # of them in the summary; a run that has more is told well enough by these


class AlarmLog(BaseCallback):
    """Prints what `monitor` finds alarming and writes it to `path`, a line each; comes after it among callbacks."""

    def __init__(self, monitor: PlasticityMonitor, path: Path, console: Console):
        super().__init__()
        self.monitor, self.path, self.console = monitor, path, console
        self._told = 0

    @property
    def lines(self) -> list[str]:
        """All alarms so far: `step 300,000: pi/1: effective rank fell from ...`."""
        alarms = self.monitor.alarms
        return [] if alarms is None else [f"step {step:,}: {sentence}" for step, sentence in alarms.raised]

    def summary(self) -> list[str]:
        """What the end summary says of them; nothing if there were none."""
        lines = self.lines
        if not lines:
            return []
        more = [f"  ... and {len(lines) - MOST} more in {self.path.name}"] if len(lines) > MOST else []
        return ["", "Alarms: signs of lost plasticity", *(f"  {line}" for line in lines[:MOST]), *more]

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        new = self.lines[self._told :]
        self._told += len(new)
        if new:
            with self.path.open("a", encoding="utf-8") as file:
                file.writelines(f"{line}\n" for line in new)
        for line in new:
            self.console.print(
                f"plasticity alarm, {line}", style="yellow", highlight=False, markup=False, soft_wrap=True
            )
