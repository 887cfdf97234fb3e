"""The environments of a run: what is wrong with their settings, and the vector of them that an agent steps."""

from __future__ import annotations

import difflib
import importlib
import inspect
import re
from functools import partial
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec, load_env_creator
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv

from envs import TASKS, NonStationary, parse_changes
from experiments.schema import Config, EnvSettings
from experiments.stop import ignore_interrupts

Env = gym.Env[Any, Any]


def make_env(settings: EnvSettings) -> Env:
    """One environment as the settings describe it, with SB3's Monitor outermost."""
    env = gym.make(settings.id, **_keywords(settings))
    if settings.changes:
        env = NonStationary(
            env,
            list(settings.changes),
            schedule_seed=settings.schedule_seed,
            boundary=settings.boundary,
            context=settings.context,
        )
    return Monitor(env)


def make_vec_env(config: Config) -> VecEnv:
    """`env.n_envs` copies; copy i is seeded with seed + i when the model is built."""
    if config.env.vector == "subproc":
        return SubprocVecEnv([partial(_make_env_in_worker, config.env) for _ in range(config.env.n_envs)])
    return DummyVecEnv([partial(make_env, config.env) for _ in range(config.env.n_envs)])


def _make_env_in_worker(settings: EnvSettings) -> Env:
    ignore_interrupts()
    return make_env(settings)


def environment_faults(config: Config) -> list[str]:
    """One sentence for each thing that keeps these environments from being built, or this agent from acting in them."""
    settings = config.env
    try:
        _spec(settings.id)
    except gym.error.UnregisteredEnv:
        near = difflib.get_close_matches(settings.id, gym.registry, n=1)
        hint = f'; did you mean "{near[0]}"?' if near else ""
        return [f'env.id: no environment "{settings.id}" is registered{hint}']
    except Exception as error:  # importing a module of the user's can fail in any way
        return [f'env.id: "{settings.id}" cannot be used: {_sentence(error)}']
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
        return [f"env.kwargs: {_sentence(error)}{_nearest_argument(settings.id, str(error))}"]
    except (ValueError, OSError, ImportError, AttributeError, RuntimeError, gym.error.Error) as error:
        return [f"env: {_sentence(error)}"]
    faults = []
    if agent.algorithm == "sac" and not isinstance(env.action_space, gym.spaces.Box):
        faults.append(f"agent=sac needs continuous actions, {settings.id} has {env.action_space}; use agent=ppo")
    if agent.policy == "CnnPolicy" and not is_image_space(env.observation_space):
        faults.append(f"agent.policy=CnnPolicy needs images, {settings.id} observes {env.observation_space}")
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


def _spec(env_id: str) -> EnvSpec:
    """The registered environment; the module of an id such as `module:Id-v0` is imported first, as `make` does."""
    module, _, name = env_id.rpartition(":")
    if module:
        importlib.import_module(module)
    return gym.spec(name)


def _arguments(env_id: str) -> list[str]:
    spec = _spec(env_id)
    if spec.entry_point is None:
        return []
    creator = spec.entry_point if callable(spec.entry_point) else load_env_creator(spec.entry_point)
    return [*inspect.signature(creator).parameters, *spec.kwargs]


def _nearest_argument(env_id: str, message: str) -> str:
    unexpected = re.search(r"unexpected keyword argument '(\w+)'", message)
    near = difflib.get_close_matches(unexpected[1], _arguments(env_id), n=1) if unexpected else []
    return f'; did you mean "{near[0]}"?' if near else ""


def _sentence(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
