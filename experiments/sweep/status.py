"""Where each cell of a sweep is: read from its folder, and changed by what the workers say."""

from __future__ import annotations

import csv
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from experiments import folder as files
from experiments.analysis.runs import tail
from experiments.checkpoint.store import FOLDER as CHECKPOINTS
from experiments.lock import holder
from experiments.sweep.cells import Cell

TODO, SAVED, RUNNING, ELSEWHERE, DONE, FAILED, STOPPED = (
    "to do",
    "saved",
    "running",
    "elsewhere",
    "done",
    "failed",
    "stopped",
)
STATES = (RUNNING, ELSEWHERE, TODO, SAVED, STOPPED, FAILED, DONE)
EPISODES = 20  # the return shown is the mean of so many, the last


@dataclass
class Status:
    """A cell's state. step: environment steps taken; score: its recent mean return; lines: why it failed.

    host: where it runs; since: (seconds, step) when it was first seen to move from `start`, which rates are from.
    marks, begun: the steps that it had got to each time it was sent to workers, and each time that one began.
    """

    cell: Cell
    state: str = TODO
    step: int = 0
    score: float | None = None
    lines: tuple[str, ...] = ()
    host: str = ""
    begun: list[int] = field(default_factory=list)
    start: int | None = None
    since: tuple[float, int] | None = None
    rate: float | None = None
    marks: list[int] = field(default_factory=list)

    @property
    def left(self) -> float | None:
        """Seconds until it is done, at its rate so far."""
        return (self.cell.steps - self.step) / self.rate if self.rate else None

    def begin(self, host: str) -> None:
        """It runs, on a worker of ours."""
        self.state, self.host, self.lines = RUNNING, host, ()
        self.start = self.since = self.rate = None
        self.begun.append(newest_checkpoint(self.cell.folder))

    def look(self) -> None:
        """Read how far it is."""
        self.step, self.score = progress(self.cell.folder)
        now = time.monotonic()
        if self.start is None or self.step < self.start:  # going on, it first goes back to its checkpoint
            self.start, self.since, self.rate = self.step, None, None
        elif self.since is None and self.step > self.start:
            self.since = (now, self.step)
        elif self.since is not None and self.step > self.since[1]:
            self.rate = (self.step - self.since[1]) / (now - self.since[0])

    @property
    def open(self) -> bool:
        """Whether something is still to be done, or being done."""
        return self.state in (TODO, SAVED, RUNNING, ELSEWHERE)

    def find(self) -> None:
        """Read what its folder says of it while no worker of ours has it."""
        folder = self.cell.folder
        running = holder(folder)
        with suppress(OSError, ValueError):
            step, self.score = progress(folder)
            self.step = newest_checkpoint(folder) if running is None else step  # what it would go on from
            result = files.result(folder)
            if running is not None:
                self.state, self.host = ELSEWHERE, str(running.get("host", ""))
            elif result.get("status") == "finished" and result["steps"] == self.cell.steps:
                self.state, self.step = DONE, self.cell.steps
            elif result.get("status") == "failed" and result["steps"] >= self.step:
                self.state, self.lines = FAILED, tuple(_last_line(folder / files.ERROR_LOG))
            else:
                self.state = SAVED if self.step else TODO


def progress(folder: Path) -> tuple[int, float | None]:
    """Environment steps that a run has taken, and the mean return of its last episodes."""
    step, score = newest_checkpoint(folder), None
    rows = _tail(folder / files.EPISODES)
    if rows:
        step = max(step, int(rows[-1][0]))
        returns = [float(row[3]) for row in rows[-EPISODES:]]
        score = sum(returns) / len(returns)
    return step, score


def newest_checkpoint(folder: Path) -> int:
    """The step of the newest checkpoint, which is not verified here; 0: there is none."""
    with suppress(OSError):
        return max((int(path.name) for path in (folder / CHECKPOINTS).iterdir() if path.name.isdigit()), default=0)
    return 0


def _tail(path: Path) -> list[list[str]]:
    """The last whole rows of `episodes.csv`."""
    return [row for row in csv.reader(tail(path)[1:]) if len(row) == 5]  # the first is the header, or the rest of a row


def _last_line(path: Path) -> list[str]:
    with suppress(OSError):
        return [line for line in path.read_text("utf-8", "replace").splitlines() if line.strip()][-1:]
    return []
