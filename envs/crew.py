"""A few threads that share out small pieces of work, each of which leaves Python for a while.

Made for pieces of some hundred microseconds: handing over takes some ten, where `concurrent.futures` takes hundreds.
"""

from __future__ import annotations

import ctypes
import os
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any

Share = Callable[[int, int, int], None]  # as `envs.Batch` describes it
WORTH = 4e-4  # seconds of work that pay for waking a thread, which takes some 50 us
PATIENCE = 3e-4  # seconds of looking again and again whether others are done, before sleeping


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Crew:
    """Threads that wait for work. They end with the process or with the crew, and are made anew after a fork.

    Args:
        threads: how many work at most, the one that calls `run` among them; with 1 there are no others.
        worth: seconds of work for which one more is called; what pieces take is measured.
    """

    def __init__(self, threads: int, worth: float = WORTH) -> None:
        self._threads, self._worth = threads, worth
        self._piece = 0.0  # seconds that one takes
        self._members: list[_Member] = []
        self._process = -1  # where the members are

    def run(self, work: Callable[[int], None], pieces: int) -> dict[int, Exception]:
        """Call work(0), ..., work(pieces - 1), in any order and several at once; return what they raised.

        Whoever is free takes the next, so that a thread that is late, or not let run by the system, holds up nobody. A
        KeyboardInterrupt is raised when all that has begun is done.
        """
        if self._process != os.getpid():
            self._hire()
        shift = _Shift(work, pieces)
        useful = pieces - 1
        if self._worth > 0:
            useful = min(useful, int(pieces * self._piece / self._worth))
        for member in self._members[:useful]:
            member.call(shift)
        start = time.perf_counter()
        own, end = shift.lead()
        if own:
            self._piece += 0.1 * ((end - start) / own - self._piece)
        return shift.errors

    def close(self) -> None:
        """End the threads; `run` makes new ones."""
        self._process = -1
        for member in self._members:
            member.call(None)
        self._members = []

    def _hire(self) -> None:
        self._members = [_Member(rank) for rank in range(self._threads - 1)]
        self._process = os.getpid()
        for member in self._members:
            weakref.finalize(self, member.call, None).atexit = False


class _Shift:
    """Pieces of work, done once. Taking a piece, and noting one that is done, are atomic in Python."""

    def __init__(self, work: Callable[[int], None], pieces: int) -> None:
        self.work, self.pieces = work, pieces
        self.errors: dict[int, Exception] = {}
        self.processor = _processor()
        self._left = iter(range(pieces))
        self._done: list[int] = []
        self._all_done = threading.Lock()
        self._all_done.acquire()

    def share(self) -> int:
        """Do pieces until none is left; return how many."""
        work, done, own = self.work, self._done, 0
        for piece in self._left:
            try:
                work(piece)
            except Exception as error:
                self.errors[piece] = error
            finally:
                done.append(piece)
            own += 1
        return own

    def help(self) -> None:
        """As `share`, for another thread than the one that leads."""
        self.share()
        if len(self._done) == self.pieces:
            with suppress(RuntimeError):  # somebody has said so already
                self._all_done.release()

    def lead(self) -> tuple[int, float]:
        """Do pieces until none is left, and wait for those of others; return how many, and when none was left."""
        interrupt: BaseException | None = None
        own = 0
        try:
            own = self.share()
        except BaseException as error:  # a signal's
            interrupt = error
            self._drop()
        end = time.perf_counter()
        while len(self._done) < self.pieces:
            try:
                if time.perf_counter() < end + PATIENCE:
                    time.sleep(0)  # lets go of Python's lock; sleeping and waking takes longer than most waits
                else:
                    self._all_done.acquire()
            except BaseException as error:
                interrupt = error
        if interrupt is not None:
            raise interrupt
        return own, end

    def _drop(self) -> None:
        """Leave the pieces that nobody has begun undone."""
        for piece in self._left:
            self._done.append(piece)


class _Member:
    """A thread that helps. It may come to a shift late, or when that is over."""

    def __init__(self, rank: int) -> None:
        self._rank = rank
        self._calls: SimpleQueue[_Shift | None] = SimpleQueue()
        threading.Thread(target=self._live, daemon=True, name=f"crew-{rank}").start()

    def call(self, shift: _Shift | None) -> None:
        """Help with a shift; None: go home."""
        self._calls.put(shift)

    def _live(self) -> None:
        while True:
            shift = self._calls.get()
            if shift is None:
                return
            if shift.processor is not None and shift.processor == _processor():
                _move(shift.processor, self._rank)
            shift.help()
            del shift  # what it holds may hold the crew, which could then never be let go


def _find_processor() -> Callable[[], int] | None:
    """Return the C library's sched_getcpu, called without letting go of Python's lock."""
    try:
        found: Any = ctypes.PyDLL(None).sched_getcpu
    except (AttributeError, OSError, TypeError):
        return None
    return found if hasattr(os, "sched_setaffinity") else None


_sched_getcpu = _find_processor()


def _processor() -> int | None:
    return None if _sched_getcpu is None else _sched_getcpu()


def _move(processor: int, rank: int) -> None:
    """Move this thread to another processor, where it may stay or not.

    Linux wakes a thread where it last ran, or where it is woken from. Two that came to lie on one core, on a virtual
    machine of two, were seen to stay there for seconds, taking turns.
    """
    with suppress(OSError):
        allowed = os.sched_getaffinity(0)
        if others := sorted(allowed - {processor}):
            os.sched_setaffinity(0, {others[rank % len(others)]})
            os.sched_setaffinity(0, allowed)
