"""Frozen regimes: copies of a changing environment that stand still, to test an agent on or to train another."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv
from torch import nn

Env = gym.Env[Any, Any]
Build = Callable[[VecEnv, int], BaseAlgorithm]
AT_ONCE = 8  # environments stepped side by side, so that the policy is asked once for all of them
CLOCKS_APART = 1 << 24  # environment steps between the clocks of two episodes, for what is noise addressed by the clock


class Stopped(Exception):
    """Raised in the midst of an evaluation that was asked to stop."""


@dataclass(frozen=True)
class Played:
    """An episode in a frozen regime. number: 0, 1, ...; total: its undiscounted return; length: environment steps."""

    regime: int
    number: int
    total: float
    length: int


class FrozenRegimes:
    """Tests and trains agents on single regimes of a schedule.

    Environments of its own, seeds of its own: episode i starts from the same state on every regime and each time, so
    that returns differ only because agents and regimes do. No global random stream is advanced, and the networks' modes
    are put back.

    make_env: builds a copy of the environment that is trained on, with the same `schedule_seed`.
    episodes: on each regime. seed: of their starts. stop: asked at each step whether to raise `Stopped`.
    Raises `ValueError` where the environment cannot be frozen.
    """

    def __init__(self, make_env: Callable[[], Env], episodes: int, seed: int, stop: Callable[[], bool]):
        self.make_env, self.episodes, self.stop = make_env, episodes, stop
        self.seed, self._seeds = seed, _seeds(seed, 0, episodes)
        self._envs: list[Env] = []
        env = self._env(0)
        if not env.has_wrapper_attr("pin"):
            self.close()
            raise ValueError(f"evaluation needs an environment that changes (envs.NonStationary), got {env}")

    def due(self, step: int) -> dict[str, float | int]:
        """What the schedules of the copies say for an environment step."""
        found: dict[str, float | int] = self._env(0).get_wrapper_attr("due")(step)
        return found

    def exists(self, regime: int) -> bool:
        """Whether the schedule ever gets there; regime 0 always exists."""
        try:
            self._pin(self._env(0), regime)
        except ValueError:
            return False
        return True

    def returns(self, model: BaseAlgorithm, regimes: Sequence[int]) -> dict[int, NDArray[np.float64]]:
        """regime -> undiscounted returns of the deterministic policy, (episodes,)."""
        found = {regime: np.zeros(self.episodes) for regime in regimes}
        for one in self.play(model, regimes):
            found[one.regime][one.number] = one.total
        return found

    def play(self, model: BaseAlgorithm, regimes: Sequence[int], deterministic: bool = True) -> Iterator[Played]:
        """All episodes, as they end; until the last one has, draws from global random streams are undone."""
        jobs = [(regime, episode) for regime in regimes for episode in range(self.episodes)]
        with untouched_streams(), _modes_kept(model.policy):
            slots = [_Slot(self._env(i)) for i in range(min(AT_ONCE, len(jobs)))]
            yield from _play(model, slots, jobs, self, deterministic)

    def begin(self, env: Env, regime: int, episode: int) -> Any:
        """The first observation of an episode in a frozen regime."""
        self._pin(env, regime)
        env.get_wrapper_attr("set_clock")(episode * CLOCKS_APART)
        observation, _ = env.reset(seed=self._seeds[episode])
        return observation

    def train(self, build: Build, regime: int, steps: int, n_envs: int) -> BaseAlgorithm:
        """An agent trained for `steps` environment steps (all `n_envs` copies together) on one regime.

        build: makes an untrained agent for given environments, which it may wrap in SB3's VecNormalize, and seed; the
            seed is the regime's own.
        """
        if self.stop():
            raise Stopped

        def frozen() -> Env:
            env = self.make_env()
            self._pin(env, regime)
            return env

        with untouched_streams():
            venv = DummyVecEnv([frozen] * n_envs)
            try:
                model = build(venv, *_seeds(self.seed, 1 + regime, 1))
                model.set_logger(Logger(None, []))
                model.learn(steps, callback=lambda inside, outside: not self.stop())
            finally:
                venv.close()
        if self.stop():
            raise Stopped
        return model

    def close(self) -> None:
        """Close the copies."""
        for env in self._envs:
            env.close()
        self._envs.clear()

    def _env(self, index: int) -> Env:
        with untouched_streams():
            while len(self._envs) <= index:
                self._envs.append(self.make_env())
        return self._envs[index]

    def _pin(self, env: Env, regime: int) -> None:
        env.get_wrapper_attr("pin")(regime=regime)


class _Slot:
    """One environment and the episode it is in; job: (regime, episode), None where there is none left to do."""

    def __init__(self, env: Env):
        self.env = env
        self.job: tuple[int, int] | None = None
        self.observation: Any = None
        self.total, self.length = 0.0, 0


def _play(
    model: BaseAlgorithm,
    slots: list[_Slot],
    jobs: list[tuple[int, int]],
    regimes: FrozenRegimes,
    deterministic: bool,
) -> Iterator[Played]:
    """Play all jobs, some at a time; yields each as it ends. A slot without a job stands still."""
    waiting = iter(jobs)
    for slot in slots:
        _next(slot, waiting, regimes)
    normaliser = model.get_vec_normalize_env()
    state: tuple[NDArray[np.float32], ...] | None = None  # of recurrent policies
    while any(slot.job is not None for slot in slots):
        if regimes.stop():
            raise Stopped
        observations: Any = _stack([slot.observation for slot in slots])
        if normaliser is not None:
            observations = normaliser.normalize_obs(observations)
        starts = np.array([slot.length == 0 for slot in slots])
        actions, state = model.predict(observations, state, starts, deterministic=deterministic)
        for slot, action in zip(slots, actions, strict=True):
            if slot.job is None:
                continue
            slot.observation, reward, terminated, truncated, _ = slot.env.step(action)
            slot.total, slot.length = slot.total + float(reward), slot.length + 1
            if terminated or truncated:
                yield Played(*slot.job, slot.total, slot.length)
                _next(slot, waiting, regimes)


def _next(slot: _Slot, waiting: Iterator[tuple[int, int]], regimes: FrozenRegimes) -> None:
    slot.job, slot.total, slot.length = next(waiting, None), 0.0, 0
    if slot.job is not None:
        slot.observation = regimes.begin(slot.env, *slot.job)


def _seeds(seed: int, key: int, count: int) -> list[int]:
    """Seeds apart from the small integers that people and SB3 give to training environments."""
    return [int(word) for word in np.random.SeedSequence(seed, spawn_key=(key,)).generate_state(count)]


def _stack(observations: list[Any]) -> Any:
    if isinstance(observations[0], dict):
        return {key: np.stack([one[key] for one in observations]) for key in observations[0]}
    return np.stack(observations)


@contextmanager
def untouched_streams() -> Iterator[None]:
    """Whatever is drawn inside, the global random streams of Python, NumPy and torch go on as if it had not been."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    gpus = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()  # type: ignore[no-untyped-call]
    try:
        with torch.random.fork_rng(devices=gpus):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002


@contextmanager
def _modes_kept(policy: nn.Module) -> Iterator[None]:
    """SB3's predict puts a policy into evaluation mode and leaves it there."""
    modes = [(module, module.training) for module in policy.modules()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
