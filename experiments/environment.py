"""The environments of a run: what is wrong with their settings, and the vector of them that an agent steps."""

from __future__ import annotations

import difflib
from functools import partial
from typing import Any

import gymnasium as gym
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from agents import BatchedVecEnv
from agents.batched import why_not
from envs import TASKS, Checkpointable, NonStationary, parse_changes, stable_physics
from envs.lookup import arguments, find_spec, unexpected_argument
from experiments.failure_report import FailureReport
from experiments.guard import Guard
from experiments.memory import memory_faults
from experiments.normalization import normalization_faults, normalized
from experiments.schema import Config, EnvSettings
from experiments.threads import threads
from experiments.workers import Workers

Env = gym.Env[Any, Any]
# What SB3's Monitor keeps of all episodes, and when it began; nothing reads it in a run.
RECORDS = ("episode_returns", "episode_lengths", "episode_times", "t_start")


def make_env(settings: EnvSettings) -> Env:
    """One environment as the settings describe it, with SB3's Monitor, and its state within reach of checkpoints."""
    env = gym.make(settings.id, **_keywords(settings))
    if settings.changes:
        env = NonStationary(
            env,
            list(settings.changes),
            schedule_seed=settings.schedule_seed,
            boundary=settings.boundary,
            context=settings.context,
        )
    return Checkpointable(Monitor(stable_physics(env)), leave=RECORDS)


def make_vec_env(config: Config) -> VecEnv:
    """`env.n_envs` copies, guarded; copy i is seeded with seed + i when the model is built."""
    copies = range(config.env.n_envs)
    if config.env.vectorization == "subproc":
        env: VecEnv = Workers([partial(_make_env_in_worker, config.env, config.seed + index) for index in copies])
    else:
        env = DummyVecEnv([partial(_make_reporting_env, config.env) for _ in copies])
        if config.env.vectorization != "dummy" and why_not(env.envs) is None:
            env = BatchedVecEnv([partial(_the_same, one) for one in env.envs], threads(config))
    return normalized(config, Guard(env, config.run.guard))


def stepping(config: Config, env: VecEnv) -> list[str]:
    """A line where the environments that `make_vec_env` made are not stepped as was asked."""
    inner = env.unwrapped
    if config.env.vectorization != "batched" or not isinstance(inner, DummyVecEnv) or isinstance(inner, BatchedVecEnv):
        return []
    return [f"env.vectorization=batched is not possible, they are stepped one after the other: {why_not(inner.envs)}"]


def _the_same(env: Env) -> Env:
    return env


def _make_env_in_worker(settings: EnvSettings, seed: int) -> Env:
    set_random_seed(seed)  # of the process's own streams, which an environment may draw from
    return _make_reporting_env(settings)


def _make_reporting_env(settings: EnvSettings) -> Env:
    return FailureReport(make_env(settings))


def environment_faults(config: Config) -> list[str]:
    """One sentence for each thing that keeps these environments from being built, or this agent from acting in them."""
    settings = config.env
    try:
        find_spec(settings.id)
    except ValueError as error:
        return [f"env.id: {error}"]
    faults = _schedule_faults(settings)
    if not faults:
        faults = _trial_faults(config)
    return faults


def _schedule_faults(settings: EnvSettings) -> list[str]:
    if settings.changes and settings.id in TASKS:
        return [
            f"env.changes: {settings.id} already changes by a schedule of its own (set env.kwargs); "
            f"for changes of your own take a stationary environment, env=gym env.id=..."
        ]
    faults = []
    for index, change in enumerate(settings.changes):
        try:
            parse_changes([change], schedule_seed=settings.schedule_seed)
        except ValueError as error:
            faults.append(f"env.changes[{index}]: {_sentence(error)}")
    return faults


def _trial_faults(config: Config) -> list[str]:
    """What building one environment says: argument names, values and targets are checked where they are used."""
    settings, agent = config.env, config.agent
    try:
        env = make_env(settings)
    except TypeError as error:
        return [f"env.kwargs: {_sentence(error)}{_nearest_argument(settings.id, error)}"]
    except (ValueError, OSError, ImportError, AttributeError, RuntimeError, gym.error.Error) as error:
        return [f"env: {_sentence(error)}"]
    faults = []
    if agent.algorithm == "sac" and not isinstance(env.action_space, gym.spaces.Box):
        faults.append(f"agent=sac needs continuous actions, {settings.id} has {env.action_space}; use agent=ppo")
    if agent.policy == "CnnPolicy" and not is_image_space(env.observation_space):
        faults.append(f"agent.policy=CnnPolicy needs images, {settings.id} observes {env.observation_space}")
    faults += normalization_faults(config, env.observation_space)
    faults += memory_faults(config, env.observation_space, env.action_space)
    if config.evaluation.episodes:
        faults += _evaluation_faults(config, env)
    env.close()
    return faults


def _evaluation_faults(config: Config, env: Env) -> list[str]:
    if not env.has_wrapper_attr("pin"):
        return [
            f"evaluation.episodes needs an environment that changes, {config.env.id} is stationary: "
            f"set env.changes, choose another env, or leave evaluation.episodes=0"
        ]
    try:
        env.get_wrapper_attr("pin")(regime=(config.evaluation.regimes or 1) - 1)
    except ValueError as error:
        return [f"evaluation.regimes must be at most the schedule's number of regimes: {_sentence(error)}"]
    return []


def _keywords(settings: EnvSettings) -> dict[str, Any]:
    """The id's keyword arguments; Pliant's own ids take the three settings of a schedule too."""
    ours = {name: getattr(settings, name) for name in ("schedule_seed", "boundary", "context")}
    return {**(ours if settings.id in TASKS else {}), **settings.kwargs}


def _nearest_argument(env_id: str, error: TypeError) -> str:
    name = unexpected_argument(error)
    near = difflib.get_close_matches(name, arguments(find_spec(env_id)), n=1) if name else []
    return f'; did you mean "{near[0]}"?' if near else ""


def _sentence(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
