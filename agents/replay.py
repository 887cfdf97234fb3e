"""A replay buffer in half the memory, where that changes nothing, and batches out of it in one pass."""

from __future__ import annotations

from operator import is_
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.buffers import ReplayBuffer
from torch import Tensor

from plasticity.native import NATIVE, Work, table, together

OBSERVATIONS = ("observations", "next_observations")
ARRAYS = (*OBSERVATIONS, "actions", "rewards", "dones", "timeouts")


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
    for name in OBSERVATIONS:
        array = vars(buffer).get(name)
        if array is not None and array.dtype != kind:
            setattr(buffer, name, array.astype(kind) if buffer.size() else np.zeros(array.shape, kind))


class Transitions:
    """Takes batches of `rows` transitions out of replay buffers, with the draws that `ReplayBuffer.sample` makes.

    pairs: observations and room for actions, (rows, inputs of a critic); below them the same of the next ones.
    actions: (rows, actions); rewards, dones: (rows, 1).
    """

    def __init__(self, pairs: Tensor, actions: Tensor, rewards: Tensor, dones: Tensor):
        self._into = np.array([tensor.data_ptr() for tensor in (pairs, actions, rewards, dones)], np.int64)
        self._held = pairs, actions, rewards, dones
        self._single = pairs.dtype == torch.float32
        rows, acted = actions.shape
        self._picked, self._addresses = np.zeros(rows, np.int64), np.zeros(len(ARRAYS), np.int64)
        self._arrays: list[Any] = []  # whose addresses these are
        where, sizes = (self._addresses.ctypes.data, self._picked.ctypes.data), (pairs.shape[1] - acted, acted, rows)
        parts = (0, rows // 2), (rows // 2, rows)
        tables = [table([*where, *part, *sizes, self._into.ctypes.data]) for part in parts]
        self._halves = [Work((NATIVE[pairs.dtype].transitions, part)) for part in tables]

    def fits(self, buffer: Any, normaliser: Any) -> bool:
        """Whether this can be done; elsewhere the buffer's own `sample` is to be asked."""
        plain = type(buffer) is ReplayBuffer and not buffer.optimize_memory_usage and normaliser is None
        if not (plain and self._single):
            return False
        arrays = [*map(vars(buffer).get, ARRAYS)]
        if len(self._arrays) == len(arrays) and all(map(is_, arrays, self._arrays)):
            return True
        if not all(array.dtype == np.float32 and array.flags.c_contiguous for array in arrays):
            return False
        self._arrays, self._addresses[:] = arrays, [array.ctypes.data for array in arrays]
        return True

    def __call__(self, buffer: ReplayBuffer) -> None:
        """Write a batch, out of the buffer that `fits` has just been asked for, to where it belongs."""
        end, rows = buffer.buffer_size if buffer.full else buffer.pos, len(self._picked)
        steps = np.random.randint(0, end, size=rows)  # noqa: NPY002  # SB3's stream
        copies = np.random.randint(0, buffer.n_envs, size=rows)  # noqa: NPY002
        self._picked[:] = steps * buffer.n_envs + copies
        together(*self._halves)
