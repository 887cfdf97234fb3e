"""Values that change all the time: `linear`, `sine`, `random_walk`, `ou`.

A drift is a pure function of (schedule seed, t), as a schedule of regimes is, but it has no regimes: the whole time
line is regime 0, and no info calls its movement a change point. It is renewed every `resolution` environment steps and
constant in between. A new kind is one class here and one entry in grammar.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from envs.parsing import parse_count
from envs.stream import DRIFT, Stream
from envs.values import Vector

BLOCK = 4096  # states of a random drift computed at once
BEGINNING = 2**63  # the address of the first state: blocks are numbered from 0


class Path(Protocol):
    """How a drift moves.

    steps: its time scale, in environment steps of all sub-environments together.
    end: the t from which the value stays for good; infinite if it never does.
    """

    steps: int
    end: float

    def value(self, n: int, resolution: int, stream: Stream) -> float:
        """Return the value at t = n * resolution."""
        ...

    def bounds(self) -> tuple[float, float]:
        """Return the smallest and the largest value possible."""
        ...


@dataclass(frozen=True)
class Linear(Path):
    """From `start` to `stop` in a straight line within `steps` environment steps; then `stop` for good."""

    steps: int
    start: float
    stop: float
    end: float = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "end", float(self.steps))

    def value(self, n: int, resolution: int, stream: Stream) -> float:
        share = min(n * resolution / self.steps, 1.0)
        low, high = self.bounds()
        return min(max((1 - share) * self.start + share * self.stop, low), high)

    def bounds(self) -> tuple[float, float]:
        return min(self.start, self.stop), max(self.start, self.stop)

    def __str__(self) -> str:
        return f"linear:{self.steps},{self.start!r},{self.stop!r}"


@dataclass(frozen=True)
class Sine(Path):
    """A sine of period `steps` between `low` and `high`, which begins in the middle and rises."""

    steps: int
    low: float
    high: float
    end: float = field(default=math.inf, init=False)

    def value(self, n: int, resolution: int, stream: Stream) -> float:
        phase = n * resolution % self.steps / self.steps
        value = (self.low + self.high) / 2 + (self.high - self.low) / 2 * math.sin(2 * math.pi * phase)
        return min(max(value, self.low), self.high)

    def bounds(self) -> tuple[float, float]:
        return self.low, self.high

    def __str__(self) -> str:
        return f"sine:{self.steps},{self.low!r},{self.high!r}"


@dataclass(frozen=True)
class RandomWalk(Path):
    """Brownian motion from `start`, reflected at `low` and `high`.

    Without walls its variance at t would be deviation^2 t / steps, whatever the resolution: `deviation` is the standard
    deviation after `steps` environment steps. With them, it forgets where it began and ends up uniform on [low, high].

    Random access costs about 50 ns for each resolution's width of time before t, once (1 ms for t = 2e7 at a resolution
    of 1000, 1 s at 1); the last block of 4096 widths is kept, and the state at the beginning of each.
    """

    steps: int
    start: float
    deviation: float
    low: float
    high: float
    end: float = field(default=math.inf, init=False)

    def value(self, n: int, resolution: int, stream: Stream) -> float:
        walked = _recursion(stream, n, lambda: 0.0, 0.0, self.deviation * math.sqrt(resolution / self.steps))
        # Symmetric steps: folding the free walk back into the interval has the law of reflecting it.
        width = self.high - self.low
        place = (self.start - self.low + walked) % (2 * width)
        return min(max(self.low + min(place, 2 * width - place), self.low), self.high)

    def bounds(self) -> tuple[float, float]:
        return self.low, self.high

    def __str__(self) -> str:
        return f"random_walk:{self.steps},{self.start!r},{self.deviation!r},{self.low!r},{self.high!r}"


@dataclass(frozen=True)
class OrnsteinUhlenbeck(Path):
    """A stationary Ornstein-Uhlenbeck process, clipped to [low, high].

    Before clipping it is normal with mean `mean` and standard deviation `deviation` at every t, and its autocorrelation
    over a lag of d environment steps is exp(-d / steps), whatever the resolution: the discretisation is exact.
    Random access costs as the random walk's.
    """

    steps: int
    mean: float
    deviation: float
    low: float
    high: float
    end: float = field(default=math.inf, init=False)

    def value(self, n: int, resolution: int, stream: Stream) -> float:
        rate = resolution / self.steps
        spread = math.sqrt(-math.expm1(-2 * rate))
        x = _recursion(stream, n, lambda: float(stream.normal(DRIFT, BEGINNING)[0]), rate, spread)
        return min(max(self.mean + self.deviation * x, self.low), self.high)

    def bounds(self) -> tuple[float, float]:
        return self.low, self.high

    def __str__(self) -> str:
        return f"ou:{self.steps},{self.mean!r},{self.deviation!r},{self.low!r},{self.high!r}"


def _recursion(stream: Stream, n: int, start: Callable[[], float], rate: float, spread: float) -> float:
    """Return x_n of x_0 = start(), x_(i+1) = exp(-rate) x_i + spread e_i, with e_i standard normal."""
    block, place = divmod(n, BLOCK)
    if stream.block[0] != block:
        if not stream.states:
            stream.states.append(start())
        for number in range(min(block, len(stream.states) - 1), block + 1):
            states = _run(stream.states[number], stream.normal(DRIFT, number, BLOCK), rate, spread)
            if number + 1 == len(stream.states):
                stream.states.append(float(states[-1]))
        stream.block = (block, states[:-1].tolist())
    return stream.block[1][place]


def _run(x: float, e: Vector, rate: float, spread: float) -> Vector:
    """Return x_0 = x, x_1, ..., shape (len(e) + 1,)."""
    # x_n = exp(-rate n) (x_0 + spread sum_(i<n) exp(rate (i + 1)) e_i), in pieces short enough for the exponentials.
    piece = len(e) if rate == 0 else max(1, min(len(e), int(30 / rate)))
    out = [np.array([x])]
    for i in range(0, len(e), piece):
        decay = np.exp(-rate * np.arange(1, len(e[i : i + piece]) + 1))
        out.append(decay * (out[-1][-1] + spread * np.cumsum(e[i : i + piece] / decay)))
    return np.concatenate(out)


@dataclass(frozen=True)
class Drift:
    """A value that moves along a path; a pure function of (seed, name, t).

    Args:
        path: how it moves.
        resolution: the value is renewed at every multiple of this, environment steps of all sub-environments together.
        seed: the schedule seed, an integer >= 0.
        name: the target's name; schedules of one seed and different names are independent.

    Raises:
        ValueError: a seed that is not an integer >= 0, a resolution outside [1, path.steps].
    """

    path: Path
    resolution: int
    seed: int = 0
    name: str = ""
    _stream: Stream = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        parse_count("schedule_seed", self.seed)
        if not 1 <= self.resolution <= self.path.steps:
            raise ValueError(
                f"resolution must be in [1, {self.path.steps}] (environment steps, up to the drift's own time scale), "
                f"got {self.resolution}"
            )
        object.__setattr__(self, "_stream", Stream(int(self.seed), self.name))

    def regime(self, t: int) -> int:
        """Return 0: a drift has one regime."""
        return 0

    def start(self, regime: int) -> int | None:
        """Return the first t at which `regime` is due, or None if it never is."""
        return 0 if regime == 0 else None

    def at(self, t: int) -> float:
        """Return the value due at t (environment steps, all sub-environments together)."""
        return self.path.value(t // self.resolution, self.resolution, self._stream)

    def span(self, t: int) -> tuple[int, float]:
        """Return the stretch of time around t, [start, end), in which the value is that of t."""
        last = math.inf if self.path.end == math.inf else -(-int(self.path.end) // self.resolution) * self.resolution
        if t >= last:
            return int(last), math.inf
        start = t // self.resolution * self.resolution
        return start, start + self.resolution

    def bounds(self) -> tuple[float, float]:
        """Return the smallest and the largest value that can ever be due."""
        return self.path.bounds()

    def __str__(self) -> str:
        """Return the short form, such as `sine:1000000,0.5,1.5|resolution:1000`; `parse_schedule` reads it back."""
        return f"{self.path}|resolution:{self.resolution}"

    def to_dict(self) -> dict[str, str | int]:
        """Return the JSON form, `{"drift": ..., "resolution": ...}`; `parse_schedule` reads it back."""
        return {"drift": str(self.path), "resolution": self.resolution}
