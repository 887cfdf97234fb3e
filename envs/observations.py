"""What the agent sees, changed: an offset, another order of the entries, noise, a mask."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from envs.entries import Reordered, check_mask
from envs.stream import FIRST_NOISE, NOISE, Stream
from envs.values import Vector

Observation = NDArray[Any]


class BoxObservation:
    """Base of the targets here: they need observations in a Box, of any shape; entries are numbered row by row."""

    name: str
    floats = True  # whether its numbers must be floats

    def validate(self, env: gym.Env[Any, Any]) -> None:
        space = env.observation_space
        kind = "a Box of floats" if self.floats else "a Box"
        if not isinstance(space, spaces.Box) or (self.floats and not np.issubdtype(space.dtype, np.floating)):
            base = type(env.unwrapped).__name__
            raise ValueError(f"target '{self.name}' needs {kind} as the observation space, {base} has {space}")
        self.shape, self.dtype = space.shape, space.dtype
        self.entries = int(np.prod(space.shape))


def _unbounded(space: Any) -> spaces.Box:
    return spaces.Box(-np.inf, np.inf, space.shape, space.dtype.type)


class ObservationOffset(BoxObservation):
    """A constant added to each entry; infos read its Euclidean norm.

    The protocol of TRAC and C-CHAIN is `every:160000|gaussian_vector:2.0` with the first regime nominal.
    """

    name, nominal = "observation_offset", 0.0
    _offset: Observation | None

    def validate(self, env: gym.Env[Any, Any]) -> None:
        super().validate(env)
        self.size = self.entries
        self.restore()

    def apply(self, value: Vector) -> None:
        self._offset = value.reshape(self.shape).astype(self.dtype) if value.any() else None

    def restore(self) -> None:
        self._offset = None

    def observation(self, observation: Observation, t: int) -> Observation:
        return observation if self._offset is None else observation + self._offset

    def observation_space(self, space: Any) -> spaces.Box:
        return _unbounded(space)


class ObservationPermutation(Reordered, BoxObservation):
    """Another order: entry i of what the agent sees is entry value[i] of what the environment says.

    Infos read the share of entries that are not in their place.
    """

    name, floats = "observation_permutation", False

    def validate(self, env: gym.Env[Any, Any]) -> None:
        super().validate(env)
        self.begin_with(self.entries)

    def observation(self, observation: Observation, t: int) -> Observation:
        return observation if self._order is None else observation.reshape(-1)[self._order].reshape(self.shape)

    def observation_space(self, space: Any) -> spaces.Box:
        return spaces.Box(space.low.min(), space.high.max(), space.shape, space.dtype.type)


class ObservationMask(BoxObservation):
    """Entries that read 0: those where the value, of zeros and ones, has a 0. Infos read their share."""

    name, floats, nominal, low, high = "observation_mask", False, 1.0, 0.0, 1.0

    _hidden: NDArray[np.bool_] | None

    def validate(self, env: gym.Env[Any, Any]) -> None:
        super().validate(env)
        self.size = self.entries
        self.restore()

    def check(self, value: Vector) -> None:
        check_mask(self.name, value)

    def apply(self, value: Vector) -> None:
        self._hidden = value.reshape(self.shape) == 0 if (value == 0).any() else None

    def restore(self) -> None:
        self._hidden = None

    def reading(self, value: Vector) -> float:
        return 1.0 - float(value.mean())

    def observation(self, observation: Observation, t: int) -> Observation:
        return observation if self._hidden is None else np.where(self._hidden, self.dtype.type(0), observation)

    def observation_space(self, space: Any) -> spaces.Box:
        return spaces.Box(np.minimum(space.low, 0), np.maximum(space.high, 0), space.shape, space.dtype.type)


class ObservationNoise(BoxObservation):
    """Normal noise on each entry; the value is its standard deviation, in the observation's own units.

    The noise is part of the environment's randomness and not of its schedule: it is a function of (the seed of the last
    `reset(seed=...)`, t), from a generator of its own. So copies of one environment have noise of their own, a run
    repeats and resumes exactly, and the environment's generator is left alone. The observation of a reset draws from
    other addresses than those of steps, since a reset takes no time.
    """

    name, nominal, low = "observation_noise", 0.0, 0.0
    repeats = False

    def validate(self, env: gym.Env[Any, Any]) -> None:
        super().validate(env)
        self._env: Any = env.unwrapped
        self._seed, self._stream = None, Stream(0, "")
        self._purpose = NOISE
        self.restore()

    def apply(self, value: float) -> None:
        self._deviation = value

    def restore(self) -> None:
        self._deviation = 0.0

    def begin(self) -> None:
        self._purpose = FIRST_NOISE

    def observation(self, observation: Observation, t: int) -> Observation:
        purpose, self._purpose = self._purpose, NOISE
        if self._deviation == 0:
            return observation
        if self._seed != self._env.np_random_seed:
            self._seed = self._env.np_random_seed
            self._stream = Stream(self._env.np_random_seed, self.name)
        noise = self._deviation * self._stream.normal(purpose, t, self.entries)
        noisy: Observation = observation + noise.reshape(self.shape).astype(self.dtype)
        return noisy

    def observation_space(self, space: Any) -> spaces.Box:
        return _unbounded(space)
