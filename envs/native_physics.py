"""MuJoCo's simulations stepped by native.c, without Python in between: several at once, a frame of each in turn."""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import mujoco
import numpy as np

from envs.crew import Share

Job = tuple[Any, Any, int]  # model, data, frames
THREADS = 1  # its place in the table that native.c reads
STATE, FRAMES = 0, 3  # theirs in each row
FUNCTIONS = ("mj_step", "mj_rnePostConstraint", "_mjPRIVATE_setTlsLogHandler", "_mjPRIVATE_getGlobalLogHandler")
CALLBACKS = ("passive", "control", "contactfilter", "sensor", "act_dyn", "act_gain", "act_bias")
VERSION = 4  # of MuJoCo, whose log messages native.c reads
ROOM = 2048  # bytes for what an error says


class Library:
    """native.c, and what it calls.

    Attributes:
        simulate: what does the simulations of a table, with other threads that are given it at the same time.
        functions: the addresses of MuJoCo's, in the order of `FUNCTIONS`.
    """

    def __init__(self, native: ctypes.CDLL, core: ctypes.CDLL) -> None:
        self.simulate: Any = native.simulate
        self.simulate.argtypes, self.simulate.restype = [ctypes.c_void_p], None
        self.functions = [_address(getattr(core, name)) for name in FUNCTIONS]
        self._callbacks = [ctypes.c_void_p.in_dll(core, f"mjcb_{name}") for name in CALLBACKS]
        self._time = ctypes.c_void_p.in_dll(core, "mjcb_time")
        self._clock, self._no_clock = self._time.value, _address(native.no_time)

    def is_usable(self) -> bool:
        """Whether nobody has put a function of their own into MuJoCo's simulations, which may be one of Python's."""
        return self._time.value == self._clock and not any(callback.value for callback in self._callbacks)

    @contextmanager
    def untimed(self) -> Iterator[None]:
        """Have MuJoCo not look at the clock for its statistics (`MjData.timer`), which takes a twelfth of its time."""
        self._time.value = self._no_clock
        try:
            yield
        finally:
            self._time.value = self._clock


class NativePhysics:
    """Simulations, by addresses.

    Args:
        library: where it is all done.
        jobs: of each simulation its model, its data, and how many frames a step has.
    """

    def __init__(self, library: Library, jobs: Sequence[Job]) -> None:
        self._library, self._held = library, jobs
        self._said = np.zeros((len(jobs), ROOM), np.uint8)
        said = [row.ctypes.data for row in self._said]
        rows = [(0, job[0]._address, job[1]._address, job[2], room) for job, room in zip(jobs, said, strict=True)]
        self._rows, self._seats = np.array(rows, np.int64), np.zeros(len(jobs), np.int64)
        self._over = 2 * self._rows[:, FRAMES]
        places = self._seats.ctypes.data, self._rows.ctypes.data
        self._table = np.array([len(jobs), 1, *places, *library.functions], np.int64)
        self._task = np.array([_address(library.simulate), self._table.ctypes.data], np.int64)
        self._where = self._table.ctypes.data, self._task.ctypes.data

    def step(self, indices: Sequence[int], threads: int, share: Share | None) -> dict[int, Exception]:
        """Step some; return what MuJoCo raised, by index. share: as for `envs.Batch`."""
        threads = 1 if share is None else max(1, min(threads, len(indices)))
        self._table[THREADS] = threads
        self._rows[:, STATE] = self._over
        self._rows[indices, STATE] = 0
        self._said[:, 0] = 0
        table, task = self._where
        with self._library.untimed():
            if share is None or threads == 1:
                self._library.simulate(table)
            else:
                share(task, 1, threads)
        return self._errors() if self._said[:, 0].any() else {}

    def _errors(self) -> dict[int, Exception]:
        said = [bytes(row).partition(b"\0")[0].decode(errors="replace") for row in self._said]
        return {index: mujoco.FatalError(words) for index, words in enumerate(said) if words}


def _address(function: Any) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value or 0


def _load() -> Library | None:
    """None where native.c was not compiled, or MuJoCo is another version or has not all that it calls."""
    found = importlib.util.find_spec("envs._native")
    if found is None or found.origin is None:
        return None
    if mujoco.mj_version() // 1_000_000 != VERSION:  # what errors look like is not a promise of MuJoCo's
        return None
    try:
        return Library(ctypes.CDLL(found.origin), ctypes.CDLL(mujoco._functions.__file__))
    except (AttributeError, OSError, ValueError):
        return None


LIBRARY = _load()
