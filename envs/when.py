"""The times at which regimes begin: `every`, `poisson`, `at`.

t counts environment steps of all sub-environments together. A new kind is one class here and one entry in grammar.py.
"""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass
from typing import Protocol

from envs.stream import TIMES, Stream

BLOCK = 256  # gaps drawn at once: making a generator costs more than the numbers


class When(Protocol):
    """The times at which regimes begin."""

    def regime(self, t: int, stream: Stream) -> int:
        """Return the number of changes in (0, t]."""
        ...

    def start(self, regime: int, stream: Stream) -> int | None:
        """Return the first t of `regime` (at least 1), or None if it never comes."""
        ...


@dataclass(frozen=True)
class Every(When):
    """A change every `period` environment steps (of all sub-environments together)."""

    period: int

    def regime(self, t: int, stream: Stream) -> int:
        return t // self.period

    def start(self, regime: int, stream: Stream) -> int | None:
        return regime * self.period

    def __str__(self) -> str:
        return f"every:{self.period}"


@dataclass(frozen=True)
class Poisson(When):
    """Changes at random: the gaps are geometric, at least 1, with mean `mean` environment steps."""

    mean: float

    def regime(self, t: int, stream: Stream) -> int:
        while not stream.arrivals or stream.arrivals[-1] <= t:
            self._extend(stream)
        return bisect.bisect_right(stream.arrivals, t)

    def start(self, regime: int, stream: Stream) -> int | None:
        while len(stream.arrivals) < regime:
            self._extend(stream)
        return stream.arrivals[regime - 1]

    def _extend(self, stream: Stream) -> None:
        t = stream.arrivals[-1] if stream.arrivals else 0
        for u in stream.uniform(TIMES, len(stream.arrivals) // BLOCK, BLOCK):
            # Geometric by inversion: the discrete clock's memoryless gap.
            t += 1 if self.mean == 1 else max(1, math.ceil(math.log1p(-u) / math.log1p(-1 / self.mean)))
            stream.arrivals.append(t)

    def __str__(self) -> str:
        return f"poisson:{self.mean!r}"


@dataclass(frozen=True)
class At(When):
    """Changes at the given times, in environment steps (of all sub-environments together)."""

    times: tuple[int, ...]

    def regime(self, t: int, stream: Stream) -> int:
        return bisect.bisect_right(self.times, t)

    def start(self, regime: int, stream: Stream) -> int | None:
        return self.times[regime - 1] if regime <= len(self.times) else None

    def __str__(self) -> str:
        return "at:" + ",".join(str(t) for t in self.times)
