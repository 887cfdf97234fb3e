"""What a user sees while a run trains: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from stable_baselines3.common.callbacks import BaseCallback

from agents import target_values

LINES = 10  # without a terminal: one line for each tenth of the run
REFRESH = 0.2  # seconds between two looks at the clock's worth of change


class ProgressBar(BaseCallback):
    """Rate, time left, current regime and recent return.

    Of a run that goes on from a checkpoint, rate and time left are those since then.

    total: environment steps the run will take, all in all. console: where to show it; on a terminal as a bar.
    """

    def __init__(self, total: int, console: Console):
        super().__init__()
        self.total = total
        self.console = console
        self.bar: Progress | None = None
        self._lines = 0
        self._next = 0.0

    def _on_training_start(self) -> None:
        self._started, self._first = time.monotonic(), self.num_timesteps
        self._lines = self.num_timesteps * LINES // self.total
        if self.console.is_terminal:
            columns = (
                TextColumn("{task.percentage:>3.0f} %"),
                BarColumn(bar_width=24),
                TextColumn("{task.description}"),
            )
            self.bar = Progress(*columns, console=self.console, auto_refresh=False)
            self._task = self.bar.add_task("starting", total=self.total, completed=self.num_timesteps)
            self.bar.start()

    def _on_step(self) -> bool:
        if self.bar is None:
            if self.num_timesteps * LINES >= (self._lines + 1) * self.total:
                self._lines = self.num_timesteps * LINES // self.total
                share = 100 * self.num_timesteps / self.total
                self.console.print(f"{share:3.0f} %  {self._text()}", highlight=False, soft_wrap=True)
        elif time.monotonic() >= self._next:
            self._draw()
            self._next = time.monotonic() + REFRESH
        return True

    def close(self) -> None:
        """Draw the last state and give the terminal back; also right after an exception."""
        if self.bar is not None:
            self._draw()
            self.bar.stop()
            self.bar = None

    def _draw(self) -> None:
        if self.bar is not None:
            self.bar.update(self._task, completed=self.num_timesteps, description=self._text(), refresh=True)

    def _text(self) -> str:
        elapsed = time.monotonic() - self._started
        rate = (self.num_timesteps - self._first) / elapsed if elapsed > 0 else 0.0
        parts = [f"{self.num_timesteps:,}/{self.total:,} steps", f"{rate:,.0f}/s"]
        if rate > 0:
            parts.append(f"{clock((self.total - self.num_timesteps) / rate)} left")
        infos = self.locals.get("infos") or [{}]
        parts += [f"{name} {value:.3g}" for name, value in target_values(infos[0]).items()]
        if self.model.ep_info_buffer:
            parts.append(f"return {np.mean([episode['r'] for episode in self.model.ep_info_buffer]):,.0f}")
        return "  ".join(parts)


def clock(seconds: float) -> str:
    """Seconds as 1:02:03 or 2:03."""
    minutes, second = divmod(round(max(seconds, 0.0)), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
