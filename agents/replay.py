"""A replay buffer in half the memory, where that changes nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
from stable_baselines3.common.buffers import ReplayBuffer

ARRAYS = ("observations", "next_observations")


def keeps_single_precision(kind: Any, normalised: bool) -> bool:
    """Whether observations of this type are kept as float32: networks read no more, but running statistics do.

    normalised: whether observations are normalised as they are taken out.
    """
    return np.dtype(kind) == np.float64 and not normalised


def fit(buffer: Any, normaliser: Any) -> None:
    """Keep observations in the precision in which they are used. normaliser: the VecNormalize around the environments.

    MuJoCo's observations are float64, and SB3 keeps them so; it rounds them to float32 before anything reads them.
    """
    if type(buffer) is not ReplayBuffer or buffer.observation_space.dtype != np.float64:
        return
    normalised = normaliser is not None and normaliser.norm_obs
    kind = np.float32 if keeps_single_precision(buffer.observation_space.dtype, normalised) else np.float64
    for name in ARRAYS:
        array = vars(buffer).get(name)
        if array is not None and array.dtype != kind:
            setattr(buffer, name, array.astype(kind) if buffer.size() else np.zeros(array.shape, kind))
