"""What an environment raises, carried to the main process as information: a worker that died could not tell."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from envs.halves import Result
from experiments.errors import EnvironmentFailure

FAILURE = "failure"  # key of infos


class ElsewhereError(Exception):
    """The cause of an `EnvironmentFailure`: prints as the traceback of another process, or of before."""


@dataclass(frozen=True)
class Failure:
    """An exception as text, which goes through any pipe. sentence: its type and what it says, in one line."""

    sentence: str
    traceback: str

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """What is known of an exception that was just caught."""
        words = " ".join(str(error).split())
        name = type(error).__name__
        return cls(f"{name}: {words}" if words else name, "".join(traceback.format_exception(error)).rstrip())

    def raised(self, by: str) -> EnvironmentFailure:
        """The error to raise from here; its traceback shows the original one as the cause. by: who raised it."""
        error = EnvironmentFailure(f"{by} raised {self.sentence}")
        error.__cause__ = ElsewhereError(f"\n{self.traceback}")
        return error


class FailureReport(gym.Wrapper[Any, Any, Any, Any]):
    """Outermost on an environment in a run: what step and reset raise ends the episode and stands in the info.

    info[FAILURE] is then a `Failure`, the observation zeros and the reward 0; the environment is not called any more.
    Someone must look at infos (`Guard` does). KeyboardInterrupt and SystemExit pass through.
    """

    def __init__(self, env: gym.Env[Any, Any]):
        super().__init__(env)
        self._failure: Failure | None = None

    def step(self, action: Any) -> Result:
        try:
            observation, reward, terminated, truncated, info = self.env.step(self.before_step(action))
            return observation, reward, terminated, truncated, info
        except Exception as error:
            return self.failed_step(error)

    def before_step(self, action: Any) -> Any:
        if self._failure is not None:
            raise ElsewhereError("this environment has failed before")
        return action

    def failed_step(self, error: Exception) -> Result:
        if self._failure is None:
            self._failure = Failure.of(error)
        return _zeros(self.observation_space), 0.0, False, True, {FAILURE: self._failure}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        if self._failure is None:
            try:
                observation, info = self.env.reset(seed=seed, options=options)
                return observation, info
            except Exception as error:
                self._failure = Failure.of(error)
        return _zeros(self.observation_space), {FAILURE: self._failure}


class FailureRaised(gym.Wrapper[Any, Any, Any, Any]):
    """Outermost on an environment that is stepped here, by itself: what it raises is an `EnvironmentFailure`.

    name: whose it is, in the error's sentence.
    """

    def __init__(self, env: gym.Env[Any, Any], name: str):
        super().__init__(env)
        self._name = name

    def step(self, action: Any) -> Result:
        with self._named():
            observation, reward, terminated, truncated, info = self.env.step(action)
        return observation, reward, terminated, truncated, info

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        with self._named():
            observation, info = self.env.reset(seed=seed, options=options)
        return observation, info

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            raise EnvironmentFailure(f"{self._name} raised {Failure.of(error).sentence}") from error


def _zeros(space: spaces.Space[Any]) -> Any:
    if isinstance(space, spaces.Dict):
        return {key: _zeros(part) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(_zeros(part) for part in space.spaces)
    return np.zeros(space.shape or (), space.dtype)
