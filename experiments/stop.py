"""Stopping a run by a signal: training ends at the next environment step, and what was learned is saved."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopOnSignal(BaseCallback):
    """While it is entered (`with StopOnSignal() as stop:`), SIGINT and SIGTERM end training instead of the process.

    A second signal does what it always did. signal: the one that came, or None.
    """

    def __init__(self) -> None:
        super().__init__()
        self.signal: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopOnSignal:
        if threading.current_thread() is threading.main_thread():  # Python allows handlers nowhere else
            self._previous = {number: signal.signal(number, self._receive) for number in SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._restore()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def _on_step(self) -> bool:
        return self.signal is None


def ignore_interrupts() -> None:
    """In a worker process: Ctrl-C reaches the whole process group, and stopping is the main process's to do."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
