"""Cells and the workers that do them: what is sent, what comes back, what is sent again."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from experiments.sweep.cell import Task
from experiments.sweep.engine import LOST, Engine, News
from experiments.sweep.status import (
    DONE,
    ELSEWHERE,
    FAILED,
    RUNNING,
    SAVED,
    STOPPED,
    TODO,
    Status,
    newest_checkpoint,
)

LOOK = 1.0  # seconds between looks at folders
PATIENCE = 60.0  # seconds without any of its own workers (Dask starts one that died anew) after which all is lost


class Crew:
    """Works on cells until they are done or have failed. lost: nothing more will be done, for want of a scheduler or of
    workers."""

    def __init__(self, engine: Engine):
        self.engine, self.statuses, self.lost = engine, list[Status](), False
        self._dropped: set[int] = set()
        self._looked = 0.0
        self._manned = time.monotonic()  # when there last were workers

    @property
    def open(self) -> bool:
        """Whether there is something to wait for."""
        return not self.lost and any(status.open for status in self.statuses)

    def add(self, status: Status) -> None:
        """Have a cell worked on that `find` has looked at: nothing where it is done, later where another has it."""
        self.statuses.append(status)
        if status.state not in (DONE, ELSEWHERE):
            self._send(len(self.statuses) - 1)

    def tick(self, wait: float = LOOK) -> None:
        """Take in what has happened, waiting so many seconds for something to."""
        for news in self.engine.news(wait):
            self._take(news)
        if time.monotonic() - self._looked < LOOK:
            return
        self._looked = now = time.monotonic()
        if not self.engine.own or self.engine.workers():
            self._manned = now
        self.lost |= now - self._manned > PATIENCE
        for number, status in enumerate(self.statuses):
            if status.state == RUNNING:
                status.look()
            elif status.state == ELSEWHERE:
                status.find()
                if status.state not in (DONE, ELSEWHERE) and number not in self._dropped:
                    self._send(number)

    def drop(self, statuses: Iterable[Status]) -> None:
        """Have these stopped and saved, or not begun."""
        wanted = {id(status) for status in statuses}
        for number, status in enumerate(self.statuses):
            if id(status) in wanted and status.open and number not in self._dropped:
                self._dropped.add(number)
                if not self.engine.drop(number) and status.state != ELSEWHERE:
                    status.find()

    def stop(self) -> Iterator[None]:
        """Stop all of them; yields while they save themselves."""
        self.drop(self.statuses)
        orphans: list[Status] = []  # whose workers were ended too; they save themselves all the same
        asked = time.monotonic()
        while any(s.state == RUNNING for s in self.statuses) or any(s.state == ELSEWHERE for s in orphans):
            yield
            self.tick()
            if time.monotonic() - asked >= LOOK:
                asked = time.monotonic()
                lost = [self.statuses[number] for number in self.engine.forget_dead()]
                for status in lost:
                    status.find()
                orphans += lost
        for status in orphans:
            status.state = STOPPED if status.state == SAVED else status.state

    def _send(self, number: int) -> None:
        status = self.statuses[number]
        status.marks.append(newest_checkpoint(status.cell.folder))
        if status.state == FAILED:  # of an earlier time
            status.state, status.lines = (SAVED if status.step else TODO), ()
        task = Task(status.cell.words, str(Path.cwd()), str(status.cell.folder.absolute()))
        self.engine.send(number, task)

    def _take(self, news: News) -> None:
        status, outcome = self.statuses[news.number], news.outcome
        if news.host is not None:
            status.begin(news.host)
            return
        if outcome is None:
            self.lost = True
            status.find()
            return
        status.find()
        if outcome.done:
            status.state, status.step = DONE, status.cell.steps
        elif outcome.busy:
            status.state = ELSEWHERE  # until `tick` finds that the other has let go of it
        elif news.number in self._dropped:
            status.state = STOPPED
        elif outcome.stopped or outcome.code == LOST:
            self._again(news.number, outcome.lines or ("somebody else stopped it, before it had saved anything new",))
        else:
            status.state, status.lines = FAILED, outcome.lines

    def _again(self, number: int, lines: tuple[str, ...]) -> None:
        """Send once more what was cut short, as long as it gets on."""
        status = self.statuses[number]
        if newest_checkpoint(status.cell.folder) > status.marks[-1]:
            self._send(number)
        else:
            status.state, status.lines = FAILED, lines
