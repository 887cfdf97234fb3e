"""What targets of the agent's observations and of its actions share: another order of entries, and masks of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from envs.values import Vector


class Reordered:
    """Base of targets whose value is an order of `size` entries; infos read the share that is not in its place."""

    name: str
    low = 0.0

    _order: NDArray[np.int64] | None

    def begin_with(self, size: int) -> None:
        """Call it in `validate`, as soon as the number of entries is known."""
        self.size, self.high = size, size - 1.0
        self.nominal = np.arange(size, dtype=np.float64)
        self.restore()

    def check(self, value: Vector) -> None:
        if not np.array_equal(np.sort(value), np.arange(len(value))):
            raise ValueError(f"{self.name} takes a permutation (to: permutation), got {_shown(value)}")

    def apply(self, value: Vector) -> None:
        self._order = value.astype(np.int64) if self.reading(value) else None

    def restore(self) -> None:
        self._order = None

    def reading(self, value: Vector) -> float:
        return float((value != np.arange(len(value))).mean())


def check_mask(name: str, value: Vector) -> None:
    """Refuse what is neither 0 nor 1."""
    if not np.isin(value, (0.0, 1.0)).all():
        raise ValueError(f"{name} takes zeros and ones (to: mask:1), got {_shown(value)}")


def _shown(value: Vector) -> str:
    return np.array2string(value, precision=3, threshold=8, separator=",")
