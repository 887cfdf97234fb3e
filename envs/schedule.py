"""When the world changes and to what: a schedule is a pure function of (schedule seed, t).

t counts environment steps of all sub-environments together. The time line is cut into regimes 0, 1, 2, ...; regime 0
is in force at t = 0. Which regime is due at t, and the value of regime k, come from a counter-based generator (Philox)
addressed by k, never from a stream that has to be played forward. So every sub-environment, a resumed run and a run
read backwards see the same world without exchanging a message.
"""

from __future__ import annotations

import bisect
import hashlib
import math
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from envs.parsing import choose, parse_count

FIRST = ("nominal", "draw")


class Stream:
    """Random numbers addressed by (purpose, index), the same in any order of asking.

    Args:
        seed: the schedule seed.
        name: the target's name, so that two targets on one environment change independently.
    """

    VALUES, TIMES = 0, 1
    BLOCK = 256  # gaps drawn at once: making a generator costs more than the numbers

    def __init__(self, seed: int, name: str) -> None:
        digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
        self._key = int.from_bytes(digest[:16], "little")
        self.arrivals: list[int] = []  # Poisson change times: a cache that only grows, and follows from the key alone

    def uniform(self, purpose: int, index: int, count: int = 1) -> list[float]:
        """Return `count` numbers in [0, 1) that belong to this address."""
        # The two high words of the 256-bit counter are the address; the draws themselves advance the low ones.
        bits = np.random.Philox(key=self._key, counter=[0, 0, index, purpose])
        numbers: list[float] = np.random.Generator(bits).random(count).tolist()
        return numbers


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
        block = len(stream.arrivals) // stream.BLOCK
        for u in stream.uniform(stream.TIMES, block, stream.BLOCK):
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


class What(Protocol):
    """The values the regimes take."""

    @property
    def length(self) -> int | None:
        """How many values there are before the last one stays for good; None: no end."""
        ...

    def value(self, index: int, stream: Stream) -> float:
        """Return the value number `index` (0 is the first)."""
        ...

    def bounds(self) -> tuple[float, float]:
        """Return the smallest and the largest value possible."""
        ...


@dataclass(frozen=True)
class Uniform(What):
    """A value drawn uniformly from [low, high]."""

    low: float
    high: float
    length: None = field(default=None, init=False)

    def value(self, index: int, stream: Stream) -> float:
        (u,) = stream.uniform(stream.VALUES, index)
        return min(max(self.low + u * (self.high - self.low), self.low), self.high)

    def bounds(self) -> tuple[float, float]:
        return self.low, self.high

    def __str__(self) -> str:
        return f"uniform:{self.low!r},{self.high!r}"


@dataclass(frozen=True)
class LogUniform(What):
    """A value whose logarithm is drawn uniformly: [low, high], low > 0."""

    low: float
    high: float
    length: None = field(default=None, init=False)

    def value(self, index: int, stream: Stream) -> float:
        (u,) = stream.uniform(stream.VALUES, index)
        low, high = math.log(self.low), math.log(self.high)
        # exp(log(x)) may miss x by a rounding error, hence the clip to the promised range.
        return min(max(math.exp(low + u * (high - low)), self.low), self.high)

    def bounds(self) -> tuple[float, float]:
        return self.low, self.high

    def __str__(self) -> str:
        return f"loguniform:{self.low!r},{self.high!r}"


@dataclass(frozen=True)
class Listed(What):
    """The given values in order: once and then the last one for good (`list`), or over and over (`cycle`)."""

    values: tuple[float, ...]
    repeat: bool = False

    @property
    def length(self) -> int | None:
        return None if self.repeat else len(self.values)

    def value(self, index: int, stream: Stream) -> float:
        return self.values[index % len(self.values) if self.repeat else min(index, len(self.values) - 1)]

    def bounds(self) -> tuple[float, float]:
        return min(self.values), max(self.values)

    def __str__(self) -> str:
        return ("cycle:" if self.repeat else "list:") + ",".join(repr(v) for v in self.values)


@dataclass(frozen=True)
class Schedule:
    """When, to what, and how it begins; a pure function of (seed, name, t).

    Args:
        when: the change times.
        to: the values.
        first: `nominal`: regime 0 leaves the environment as it came and regime 1 takes the first value; `draw`: regime
            0 takes the first value.
        seed: the schedule seed, an integer >= 0.
        name: the target's name; schedules of one seed and different names are independent.
        table: the file it was read from, if any; only says how the schedule is written back.

    Raises:
        ValueError: unknown `first`, or a seed that is not an integer >= 0.
    """

    when: When
    to: What
    first: str = "nominal"
    seed: int = 0
    name: str = ""
    table: str | None = None
    _stream: Stream = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        choose("'first'", self.first, FIRST)
        parse_count("schedule_seed", self.seed)
        object.__setattr__(self, "_stream", Stream(int(self.seed), self.name))

    def regime(self, t: int) -> int:
        """Return the regime due at t (environment steps, all sub-environments together)."""
        regime = self.when.regime(t, self._stream)
        return regime if self._last is None else min(regime, self._last)

    def start(self, regime: int) -> int | None:
        """Return the first t at which `regime` is due, or None if it never is."""
        if regime == 0:
            return 0
        if self._last is not None and regime > self._last:
            return None  # the list has run out: nothing changes any more, so there is no regime to enter
        return self.when.start(regime, self._stream)

    def value(self, regime: int) -> float | None:
        """Return the value in force during `regime`; None: the environment's own nominal one."""
        if self.first == "draw":
            return self.to.value(regime, self._stream)
        return None if regime == 0 else self.to.value(regime - 1, self._stream)

    def bounds(self) -> tuple[float, float]:
        """Return the smallest and the largest value that can ever be due, the nominal one aside."""
        return self.to.bounds()

    @property
    def _last(self) -> int | None:
        """The regime that never ends, where the values are a list."""
        return None if self.to.length is None else self.to.length - (self.first == "draw")

    def __str__(self) -> str:
        """Return the short form, such as `every:2000000|loguniform:0.02,2.0|draw`; `parse_schedule` reads it back."""
        return "|".join(self.to_dict().values()).removesuffix("|nominal")

    def to_dict(self) -> dict[str, str]:
        """Return the JSON form, `{"when": ..., "to": ..., "first": ...}`; `parse_schedule` reads it back."""
        if self.table is not None:
            return {"when": f"table:{self.table}"}
        return {"when": str(self.when), "to": str(self.to), "first": self.first}
