"""Random numbers addressed by (purpose, index), never played forward: what makes a schedule a pure function of time."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

VALUES, TIMES, DRIFT, NOISE, FIRST_NOISE = range(5)  # what the numbers are for


class Stream:
    """Random numbers addressed by (purpose, index), the same in any order of asking.

    Args:
        seed: the seed, an integer >= 0.
        name: the target's name, so that two targets on one environment change independently.
    """

    _asked = (-1, 0, 0)  # purpose, index and count of what was asked for last
    _numbers: Sequence[float] = ()

    def __init__(self, seed: int, name: str) -> None:
        digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
        self._key = int.from_bytes(digest[:16], "little")
        # Caches, which follow from the key and from what the one schedule that owns this stream asks:
        self.arrivals: list[int] = []  # Poisson change times; only grows
        self.states: list[float] = []  # states of a random drift at the beginnings of its blocks; only grows
        self.block: tuple[int, list[float]] = (-1, [])  # the block last asked for, by number

    def uniform(self, purpose: int, index: int, count: int = 1) -> list[float]:
        """Return `count` numbers in [0, 1) that belong to this address."""
        if (asked := (purpose, index, count)) != self._asked:
            self._asked, self._numbers = asked, self._generator(purpose, index).random(count).tolist()
        return [*self._numbers]

    def normal(self, purpose: int, index: int, count: int = 1) -> NDArray[np.float64]:
        """Return `count` standard normal numbers, shape (count,), that belong to this address."""
        return self._generator(purpose, index).standard_normal(count)

    def _generator(self, purpose: int, index: int) -> np.random.Generator:
        # The two high words of the 256-bit counter are the address; the draws themselves advance the low ones.
        return np.random.Generator(np.random.Philox(key=self._key, counter=[0, 0, index, purpose]))
