"""What the agent is told of the values in force: a vector, in infos or at the end of the observation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from envs.live import Live
from envs.values import Vector

CONTEXTS = ("hidden", "info", "obs")


def told(lives: Sequence[Live]) -> Vector:
    """Return the values in force, in the order of the changes, each with all its entries."""
    return np.concatenate([live.told() for live in lives])


def check_flat(space: spaces.Space[Any]) -> None:
    """Refuse observations that no vector can be appended to."""
    if not isinstance(space, spaces.Box) or len(space.shape) != 1 or not np.issubdtype(space.dtype, np.floating):
        raise ValueError(f'context "obs" needs a flat Box of floats as the observation space, got {space}')


def extended(space: Any, lives: Sequence[Live]) -> spaces.Box:
    """Return the observation space with room for the values in force: a Box of shape (n + numbers told,)."""
    low: NDArray[Any] = np.concatenate([space.low, *(live.room()[0] for live in lives)]).astype(space.dtype)
    high: NDArray[Any] = np.concatenate([space.high, *(live.room()[1] for live in lives)]).astype(space.dtype)
    return spaces.Box(low, high, dtype=space.dtype.type)
