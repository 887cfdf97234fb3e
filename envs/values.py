"""The values that regimes take: one number (`uniform`, `loguniform`, `cycle`, `list`) or a vector.

A vector (`permutation`, `gaussian_vector`, `mask`; and `sign`, where the target takes one) has the size of its target:
one entry for each observation, or action. A new kind is one class here and one entry in grammar.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from envs.stream import VALUES, Stream

Vector = NDArray[np.float64]  # (size,)
Value = float | Vector


class What(Protocol):
    """The values the regimes take."""

    @property
    def length(self) -> int | None:
        """How many values there are before the last one stays for good; None: no end."""
        ...

    @property
    def vector(self) -> bool:
        """Whether these values are vectors, which only a target with a `size` can take."""
        ...

    def value(self, index: int, stream: Stream, size: int | None) -> Value:
        """Return the value number `index` (0 is the first); size: the target's, None if it takes one number."""
        ...

    def bounds(self, size: int | None) -> tuple[float, float]:
        """Return the smallest and the largest number possible, in any entry."""
        ...


@dataclass(frozen=True)
class Uniform(What):
    """A number drawn uniformly from [low, high]."""

    low: float
    high: float
    length: None = field(default=None, init=False)
    vector: bool = field(default=False, init=False)

    def value(self, index: int, stream: Stream, size: int | None) -> float:
        (u,) = stream.uniform(VALUES, index)
        return min(max(self.low + u * (self.high - self.low), self.low), self.high)

    def bounds(self, size: int | None) -> tuple[float, float]:
        return self.low, self.high

    def __str__(self) -> str:
        return f"uniform:{self.low!r},{self.high!r}"


@dataclass(frozen=True)
class LogUniform(What):
    """A number whose logarithm is drawn uniformly: [low, high], low > 0."""

    low: float
    high: float
    length: None = field(default=None, init=False)
    vector: bool = field(default=False, init=False)

    def value(self, index: int, stream: Stream, size: int | None) -> float:
        (u,) = stream.uniform(VALUES, index)
        low, high = math.log(self.low), math.log(self.high)
        # exp(log(x)) may miss x by a rounding error, hence the clip to the promised range.
        return min(max(math.exp(low + u * (high - low)), self.low), self.high)

    def bounds(self, size: int | None) -> tuple[float, float]:
        return self.low, self.high

    def __str__(self) -> str:
        return f"loguniform:{self.low!r},{self.high!r}"


@dataclass(frozen=True)
class Listed(What):
    """The given numbers in order: once and then the last one for good (`list`), or over and over (`cycle`)."""

    values: tuple[float, ...]
    repeat: bool = False
    vector: bool = field(default=False, init=False)

    @property
    def length(self) -> int | None:
        return None if self.repeat else len(self.values)

    def value(self, index: int, stream: Stream, size: int | None) -> float:
        return self.values[index % len(self.values) if self.repeat else min(index, len(self.values) - 1)]

    def bounds(self, size: int | None) -> tuple[float, float]:
        return min(self.values), max(self.values)

    def __str__(self) -> str:
        return ("cycle:" if self.repeat else "list:") + ",".join(repr(v) for v in self.values)


@dataclass(frozen=True)
class Permutation(What):
    """A permutation of 0, 1, ..., size - 1, drawn uniformly."""

    length: None = field(default=None, init=False)
    vector: bool = field(default=True, init=False)

    def value(self, index: int, stream: Stream, size: int | None) -> Vector:
        assert size is not None
        return np.argsort(stream.uniform(VALUES, index, size), kind="stable").astype(np.float64)

    def bounds(self, size: int | None) -> tuple[float, float]:
        assert size is not None
        return 0.0, size - 1.0

    def __str__(self) -> str:
        return "permutation"


@dataclass(frozen=True)
class GaussianVector(What):
    """Independent normal numbers of mean zero and standard deviation `deviation`; unbounded."""

    deviation: float
    length: None = field(default=None, init=False)
    vector: bool = field(default=True, init=False)

    def value(self, index: int, stream: Stream, size: int | None) -> Vector:
        assert size is not None
        return self.deviation * stream.normal(VALUES, index, size)

    def bounds(self, size: int | None) -> tuple[float, float]:
        return -math.inf, math.inf

    def __str__(self) -> str:
        return f"gaussian_vector:{self.deviation!r}"


@dataclass(frozen=True)
class Sign(What):
    """-1 or 1, each half of the time; one for each entry where the target takes a vector."""

    length: None = field(default=None, init=False)
    vector: bool = field(default=False, init=False)

    def value(self, index: int, stream: Stream, size: int | None) -> Value:
        signs = np.where(np.array(stream.uniform(VALUES, index, size or 1)) < 0.5, -1.0, 1.0)
        return float(signs[0]) if size is None else signs

    def bounds(self, size: int | None) -> tuple[float, float]:
        return -1.0, 1.0

    def __str__(self) -> str:
        return "sign"


@dataclass(frozen=True)
class Mask(What):
    """Ones, with zeros in `count` places drawn at random: what is masked, or fails."""

    count: int
    length: None = field(default=None, init=False)
    vector: bool = field(default=True, init=False)

    def value(self, index: int, stream: Stream, size: int | None) -> Vector:
        assert size is not None
        if self.count >= size:
            raise ValueError(f"to: mask needs a number below the target's {size} entries, got {self.count}")
        mask = np.ones(size)
        mask[np.argsort(stream.uniform(VALUES, index, size), kind="stable")[: self.count]] = 0.0
        return mask

    def bounds(self, size: int | None) -> tuple[float, float]:
        return 0.0, 1.0

    def __str__(self) -> str:
        return f"mask:{self.count}"
