"""Small agents that the tests of the agents package share."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces

from agents import PPO, SAC

PPO_SMALL = {"n_steps": 64, "batch_size": 32, "n_epochs": 2, "seed": 0, "device": "cpu"}
SAC_SMALL = {"learning_starts": 30, "batch_size": 32, "buffer_size": 1000, "seed": 0, "device": "cpu"}
SAC_NET = {"net_arch": [16, 16]}
CBP = {"cbp": {"replacement_rate": 0.05, "maturity": 3}}


class Images(gym.Env):
    """A tiny world of images: 3 actions, the reward is the brightness."""

    observation_space = spaces.Box(0, 255, (36, 36, 1), np.uint8)
    action_space: spaces.Space = spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self._observe(), {}

    def step(self, action):
        self.steps += 1
        observation = self._observe()
        return observation, float(observation.mean()) / 255, False, self.steps >= 20, {}

    def _observe(self):
        return self.np_random.integers(0, 256, (36, 36, 1), dtype=np.uint8)


class ContinuousImages(Images):
    """The same with continuous actions."""

    action_space = spaces.Box(-1, 1, (2,), np.float32)


def ppo(env="CartPole-v1", **kwargs) -> PPO:
    return PPO(kwargs.pop("policy", "MlpPolicy"), env, **PPO_SMALL | kwargs)


def sac(env="Pendulum-v1", policy_kwargs=None, **kwargs) -> SAC:
    return SAC(
        kwargs.pop("policy", "MlpPolicy"), env, policy_kwargs=SAC_NET | (policy_kwargs or {}), **SAC_SMALL | kwargs
    )


def weights(model) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.policy.parameters()])


def replaced(model) -> dict[str, float]:
    """Units replaced so far, by network."""
    return {
        name: sum(value for key, value in method.telemetry().items() if key.endswith("replaced"))
        for name, method in model.policy.plasticity.items()
    }
