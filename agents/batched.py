"""SB3's vector of environments in one process, whose MuJoCo environments are stepped at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvStepReturn
from stable_baselines3.common.vec_env.util import dict_to_obs

from envs import Batch, why_not_batched
from envs.halves import Known, replayed
from plasticity.native import share

KNOWN: Known = {Monitor: replayed}


def why_not(envs: Sequence[gym.Env[Any, Any]]) -> str | None:
    """Return why these environments cannot be in a `BatchedVecEnv`, in a sentence; None if they can."""
    return why_not_batched(envs, KNOWN)


class BatchedVecEnv(DummyVecEnv):
    """A DummyVecEnv that steps its environments at once: the same numbers, infos and states, to the last bit, sooner.

    For Gymnasium's Ant, HalfCheetah, Humanoid, Hopper and Walker2d, version 5, in Gymnasium's, Pliant's and SB3's usual
    wrappers. Everything but a step goes through the environments themselves, as in DummyVecEnv.

    Args:
        env_fns: functions that each return an environment.
        threads: how many simulations run at once; None: one for each core. Results do not depend on it.

    Raises:
        ValueError: environments that cannot be stepped at once, and why.
    """

    def __init__(self, env_fns: list[Callable[[], gym.Env[Any, Any]]], threads: int | None = None) -> None:
        super().__init__(env_fns)
        self._batch = Batch(self.envs, threads=threads, known=KNOWN, share=share)

    def step_wait(self) -> VecEnvStepReturn:
        """Return SB3's observations, rewards, dones and infos; environments whose episode ended are reset."""
        for index, result in enumerate(self._batch.step(self.actions)):
            observation, self.buf_rews[index], terminated, truncated, info = result
            self.buf_dones[index] = done = terminated or truncated
            info["TimeLimit.truncated"] = truncated and not terminated
            if done:
                info["terminal_observation"] = deepcopy(observation)
                observation, self.reset_infos[index] = self.envs[index].reset()
            self._save_obs(index, observation)
            self.buf_infos[index] = info
        observations = dict_to_obs(self.observation_space, {key: part.copy() for key, part in self.buf_obs.items()})
        return observations, np.copy(self.buf_rews), np.copy(self.buf_dones), list(self.buf_infos)

    def close(self) -> None:
        """Close the environments, and end the threads."""
        self._batch.close()
        super().close()
