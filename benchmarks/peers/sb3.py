"""Stable-Baselines3's PPO and SAC on gymnasium's Ant."""

from __future__ import annotations

import gymnasium as gym
import torch
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.env_util import make_vec_env

from benchmarks import settings
from benchmarks.contestant import Caller
from benchmarks.peers.learner import learn


def ppo(
    caller: Caller,
    n_envs: int = settings.COPIES,
    width: int = settings.WIDTH,
    depth: int = settings.DEPTH,
    threads: int | None = None,
) -> None:
    """n_envs: sub-environments of a DummyVecEnv; threads: of torch, None for as many as it takes by itself."""
    if threads is not None:
        torch.set_num_threads(threads)
    kwargs = {"net_arch": [width] * depth, "activation_fn": torch.nn.ReLU}
    env = make_vec_env(settings.ANT, n_envs) if n_envs > 1 else gym.make(settings.ANT)
    model = PPO("MlpPolicy", env, policy_kwargs=kwargs, seed=0, device="cpu", **settings.ppo(n_envs))
    learn(caller, model, settings.ROLLOUT)


def sac(caller: Caller) -> None:
    """One environment, a gradient step for each of its steps: as it comes."""
    learn(caller, SAC("MlpPolicy", gym.make(settings.ANT), seed=0, device="cpu"), settings.SAC_STEPS)
