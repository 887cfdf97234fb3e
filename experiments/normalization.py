"""Running normalisation of observations and rewards: SB3's VecNormalize, as the settings ask for it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecEnv, VecNormalize, unwrap_vec_normalize

from experiments import folder as files
from experiments.errors import BadInput
from experiments.schema import Config


def normalized(config: Config, env: VecEnv) -> VecEnv:
    """The environments with what the settings ask to normalise, or as they are. Returns are discounted as the agent's.

    The statistics are SB3's: running means and variances over all steps since the run began, in all its regimes.
    """
    observations, rewards = config.env.normalize_observations, config.env.normalize_rewards
    if not (observations or rewards):
        return env
    return VecNormalize(env, norm_obs=observations, norm_reward=rewards, gamma=config.agent.gamma)


def normalization_faults(config: Config, observes: gym.Space[Any]) -> Iterator[str]:
    """A sentence if observations of this space cannot be normalised and are asked to be."""
    if not config.env.normalize_observations:
        return
    if is_image_space(observes):
        yield (
            f"env.normalize_observations is not for images, which are scaled to [0, 1] without it, and {config.env.id} "
            f"observes {observes}; set env.normalize_observations=false"
        )
    elif not isinstance(observes, gym.spaces.Box):
        yield f"env.normalize_observations needs observations in a Box, {config.env.id} observes {observes}"


def write_normalization(folder: Path, env: VecEnv) -> None:
    """Keep what a user of the trained agent needs in `normalization.json`; nothing where nothing was normalised.

    The agent acts on clip((observation - mean) / sqrt(var + epsilon), -clip, clip), each of shape (observation size,),
    as float32, and was trained on clip(reward / sqrt(var + epsilon), -clip, clip), where mean and var are those of the
    discounted sum of rewards. null stands for what was not normalised.
    """
    normalizer = unwrap_vec_normalize(env)
    if normalizer is None:
        return
    observations = rewards = None
    if normalizer.norm_obs:
        moments: Any = normalizer.obs_rms  # one, since observations that are dictionaries are refused
        observations = _statistics(moments, normalizer.clip_obs, normalizer.epsilon)
    if normalizer.norm_reward:
        rewards = _statistics(normalizer.ret_rms, normalizer.clip_reward, normalizer.epsilon)
        rewards["gamma"] = normalizer.gamma
    text = json.dumps({"observations": observations, "rewards": rewards}, indent=2)
    (folder / files.NORMALIZATION).write_text(text + "\n", "utf-8")


def read_normalization(folder: Path, env: VecEnv) -> None:
    """Put what `write_normalization` kept into environments that normalise; raises `BadInput` if it is not there."""
    normalizer = unwrap_vec_normalize(env)
    if normalizer is None:
        return
    path = folder / files.NORMALIZATION
    if not path.is_file():
        raise BadInput(f"{folder} holds no {files.NORMALIZATION}, and its agent acts on normalised observations")
    kept = json.loads(path.read_text("utf-8"))
    for name, of in {"observations": "obs_rms", "rewards": "ret_rms"}.items():
        if kept[name] is not None:
            moments: Any = getattr(normalizer, of)
            shape = np.shape(moments.mean)
            moments.mean, moments.var = (np.array(kept[name][each]).reshape(shape) for each in ("mean", "var"))
            moments.count = kept[name]["count"]


def _statistics(found: RunningMeanStd, clip: float, epsilon: float) -> dict[str, Any]:
    return {
        "mean": np.asarray(found.mean).tolist(),
        "var": np.asarray(found.var).tolist(),
        "count": float(found.count),
        "clip": clip,
        "epsilon": epsilon,
    }
