"""SBX: Stable-Baselines3's algorithms in JAX."""

from __future__ import annotations

import flax.linen as nn
import gymnasium as gym
import sbx
from stable_baselines3.common.env_util import make_vec_env

from benchmarks import settings
from benchmarks.contestant import Caller
from benchmarks.peers.learner import learn


def ppo(caller: Caller) -> None:
    """Eight environments."""
    kwargs = {"net_arch": [settings.WIDTH] * settings.DEPTH, "activation_fn": nn.relu}
    env = make_vec_env(settings.ANT, settings.COPIES)
    model = sbx.PPO("MlpPolicy", env, policy_kwargs=kwargs, seed=0, **settings.ppo(settings.COPIES))
    learn(caller, model, settings.ROLLOUT)


def sac(caller: Caller) -> None:
    """One environment, a gradient step for each of its steps: as it comes."""
    learn(caller, sbx.SAC("MlpPolicy", gym.make(settings.ANT), seed=0), settings.SAC_STEPS)
