"""Alarms of a run: printed when they are raised, and kept in its folder."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from stable_baselines3.common.callbacks import BaseCallback

from agents import PlasticityMonitor
from experiments.growing import GrowingFile, Losses

MOST = 8  # of them in the summary; a run that has more is told well enough by these


class AlarmLog(BaseCallback):
    """Prints what `monitor` finds alarming and writes it to `path`, a line each; comes after it among callbacks.

    Of a resumed run the alarms before the checkpoint are in the monitor's state: the file is written anew from those,
    and they are not printed again. losses: where it notes what could not be written.
    """

    def __init__(self, monitor: PlasticityMonitor, path: Path, console: Console, losses: Losses | None = None):
        super().__init__()
        self.monitor, self.path, self.console = monitor, path, console
        self._file = GrowingFile(path, losses or Losses())
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

    def _on_training_start(self) -> None:
        self._told = len(self.lines)
        if self._told:
            self._write(0)
        else:
            self._file.discard()

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        new = self.lines[self._told :]
        self._told += len(new)
        if new:
            self._write(len(new))
        for line in new:
            self.console.print(
                f"plasticity alarm, {line}", style="yellow", highlight=False, markup=False, soft_wrap=True
            )

    def _write(self, new: int) -> None:
        text = "".join(f"{line}\n" for line in self.lines)
        self._file.replace(text.encode(), self.num_timesteps, new)
