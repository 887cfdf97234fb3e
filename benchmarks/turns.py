"""Contestants that take turns: child processes of which one computes at a time, so that load slows all alike."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

ROOT = Path(__file__).resolve().parent.parent
Turn = dict[str, Any]  # seconds, steps; and what else a contestant tells


class ContestantFailed(RuntimeError):
    """A child process ended, or could not be built."""


class Contestant(Protocol):
    """Whoever can take a turn."""

    def turn(self) -> Turn:
        """Compute for a while; what there is to be said of it."""
        ...


@dataclass(frozen=True)
class Entry:
    """A contestant yet to be built.

    name: module and function below benchmarks/. options: its arguments. python: the interpreter it needs.
    """

    name: str
    options: dict[str, Any]
    python: str = sys.executable


class Child:
    """A contestant in a process of its own, which speaks JSON, one object a line; see benchmarks/contestant.py."""

    def __init__(self, entry: Entry):
        self.name = entry.name
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  warnings, and the traceback of a failure
        command = [entry.python, "-m", "benchmarks.contestant", entry.name, json.dumps(entry.options)]
        pipe, environment = subprocess.PIPE, os.environ | {"PYTHONPATH": str(ROOT)}
        self._process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=self._said, text=True, cwd=ROOT, env=environment
        )
        try:
            self._answer()
        except ContestantFailed:
            self.close()
            raise

    def turn(self) -> Turn:
        """Let it compute for one turn, and wait for what it tells."""
        self.call()
        return self.told()

    def call(self) -> None:
        """Let it compute for one turn."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # what is read next says why
            self._process.stdin.write("turn\n")
            self._process.stdin.flush()

    def told(self) -> Turn:
        """Wait for what it tells of the turn it was called for."""
        return self._answer()

    def close(self) -> None:
        """End the process."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with suppress(BrokenPipeError):  # what an ended process never read
                    stream.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._said.close()

    def _answer(self) -> Turn:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if line:
            return dict(json.loads(line))
        self._process.wait()
        self._said.seek(0)
        last = self._said.read().decode("utf-8", "replace").strip().splitlines()
        raise ContestantFailed(f"{self.name}: {last[-1] if last else 'it ended without a word'}")


@contextmanager
def children(entries: Sequence[Entry]) -> Iterator[list[Child]]:
    """Contestants, built one after the other and ended together."""
    with ExitStack() as stack:
        found = []
        for entry in entries:
            found.append(child := Child(entry))
            stack.callback(child.close)
        yield found


def take_turns(
    contestants: Sequence[Contestant], turns: int, advance: Callable[[float], None] = lambda share: None
) -> list[list[Turn]]:
    """What each tells of its turns, but for the first, which is dropped. Every other round goes backwards.

    advance: told which share of it all was done, after each turn.
    """
    found: list[list[Turn]] = [[] for _ in contestants]
    for number in range(turns + 1):
        places = list(range(len(contestants)))
        for place in reversed(places) if number % 2 else places:
            turn = contestants[place].turn()
            advance(1 / (len(contestants) * (turns + 1)))
            if number:
                found[place].append(turn)
    return found


@dataclass(frozen=True)
class Spread:
    """A median, and the quartiles on both sides of it."""

    value: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float]:
        """For JSON, with five digits."""
        return {name: float(f"{number:.5g}") for name, number in vars(self).items()}


def spread(numbers: Sequence[float]) -> Spread:
    """Of one number or more."""
    if len(numbers) == 1:
        return Spread(*[numbers[0]] * 3)
    low, value, high = statistics.quantiles(numbers, n=4, method="inclusive")
    return Spread(value, low, high)


def speeds(turns: Sequence[Turn], seconds: str = "seconds") -> list[float]:
    """Steps a second of each turn. seconds: under which name they were told."""
    return [turn["steps"] / turn[seconds] for turn in turns]


def gains(ours: Sequence[Turn], peer: Sequence[Turn], seconds: str = "seconds") -> list[float]:
    """How many times faster than the peer ours was, for each pair of turns of one round."""
    return [one / other for one, other in zip(speeds(ours, seconds), speeds(peer, seconds), strict=True)]
