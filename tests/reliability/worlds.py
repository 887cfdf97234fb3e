"""Worlds with trouble in them: `env=gym env.id=tests.reliability.worlds:Unlucky-v0`, and `Shaky-v0` of MuJoCo."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.mujoco.hopper_v5 import HopperEnv


class Unlucky(gym.Env[Any, Any]):
    """Pushes at random; meets its trouble at its step `at`, in the sub-environment that was seeded with `seed`.

    trouble: none, exception, nan_observation, infinite_observation, nan_reward, infinite_reward, huge_reward, or
    generator: an attribute whose state nobody can save.
    """

    observation_space = gym.spaces.Box(-np.inf, np.inf, (3,), np.float32)
    action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, trouble: str = "none", at: int = 150, seed: int = 1):
        self.trouble, self.at, self.seed = trouble, at, seed
        self.t, self.seeded = 0, -1
        if trouble == "generator":
            self.numbers = (number for number in range(10**9))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.seeded = self.seeded if seed is None else seed
        return self._observation(), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        observation, reward = self._observation(), float(-(action[0] ** 2))
        if self.t == self.at and self.seeded == self.seed:
            if self.trouble == "exception":
                raise ZeroDivisionError("the world has\nno floor")
            kind, _, what = self.trouble.partition("_")
            number = {"nan": np.nan, "infinite": np.inf, "huge": 1e30}.get(kind)
            if what == "observation":
                observation[2] = number
            elif what == "reward":
                reward = float(number)
        return observation, reward, False, self.t % 40 == 0, {}

    def _observation(self) -> Any:
        return self.np_random.normal(size=3).astype(np.float32)


class Shaky(HopperEnv):
    """Hopper whose simulation breaks down at every 20th step."""

    def __init__(self, **kwargs: Any):
        self.t = 0
        super().__init__(**kwargs)

    def step(self, action: Any) -> Any:
        self.t += 1
        if self.t % 20 == 0:
            self.data.qvel[:] = 1e11
        return super().step(action)


for name, world in {"Unlucky-v0": Unlucky, "Shaky-v0": Shaky}.items():
    gym.register(name, entry_point=world)
