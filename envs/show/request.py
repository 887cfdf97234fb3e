"""What is to be looked at: an id, its keyword arguments, changes; built, or refused with an error that teaches."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec

from envs.lookup import arguments, find_spec, unexpected_argument
from envs.nonstationary import NonStationary
from envs.parsing import choose
from envs.physics import acting_targets
from envs.registration import WRAPPER
from envs.tasks import TASKS


@dataclass(frozen=True)
class Request:
    """An environment as the user asked for it; JSON, so that another process can build it too.

    Args:
        id: any registered id, or `module:Id-v0`, whose module is imported first.
        settings: keyword arguments for `gymnasium.make`; with `changes`, also those of `NonStationary`.
        changes: short forms such as `gravity=every:5e4|uniform:0.5,1.5`; none if the environment brings its own.
    """

    id: str
    settings: dict[str, Any]
    changes: tuple[str, ...] = ()

    def build(self, render_mode: str | None = None) -> tuple[gym.Env[Any, Any], NonStationary]:
        """Return the environment, and the wrapper in it that changes it.

        Raises:
            ValueError: an unknown id or keyword argument, changes that cannot be read or do nothing here, an
                environment in which nothing changes.
        """
        spec = find_spec(self.id)
        settings = {key: value for key, value in self.settings.items() if not self.changes or key not in WRAPPER}
        mode: dict[str, Any] = {} if render_mode is None else {"render_mode": render_mode}
        try:
            env = gym.make(self.id, disable_env_checker=True, **settings, **mode)
        except Exception as error:  # an environment of the user's own can fail in any way
            raise ValueError(f"{self.id}: {sentence(error)}{_nearest_argument(spec, error)}") from error
        if self.changes:
            ours = {key: value for key, value in self.settings.items() if key in WRAPPER}
            env = NonStationary(env, list(self.changes), **ours)
        wrapper = env
        while isinstance(wrapper, gym.Wrapper) and not isinstance(wrapper, NonStationary):
            wrapper = wrapper.env
        if not isinstance(wrapper, NonStationary):
            raise ValueError(self._stationary(env))
        return env, wrapper

    def _stationary(self, env: gym.Env[Any, Any]) -> str:
        ready = [id for id, task in TASKS.items() if task.base == self.id]
        return (
            f"{self.id} is stationary: nothing in it changes. Say what shall, and when, such as "
            f"--change 'reward_scale=every:5e4|uniform:0.5,1.5'; it has {', '.join(acting_targets(env))}"
            + (f". Or take {', '.join(ready)}, made from it" if ready else "")
        )


def parse_settings(items: Sequence[str]) -> dict[str, Any]:
    """Read `key=value` items; a value is JSON or a Python literal, or else text."""
    settings: dict[str, Any] = {}
    for item in items:
        key, equals, text = item.partition("=")
        if not equals or not key.strip().isidentifier():
            raise ValueError(f"--set takes key=value, such as --set period=5e5, got {item!r}")
        settings[key.strip()] = _literal(text.strip())
    return settings


def _literal(text: str) -> Any:
    with suppress(ValueError):
        return json.loads(text)
    with suppress(ValueError, SyntaxError):
        return ast.literal_eval(text)
    return text


def sentence(error: BaseException) -> str:
    """Return what an error says, on one line."""
    said = " ".join(str(error).split()) or type(error).__name__
    return re.sub(r" was raised from the environment creator for .*", "", said)  # gymnasium repeats all arguments


def _nearest_argument(spec: EnvSpec, error: Exception) -> str:
    name = unexpected_argument(error)
    if name is None or name == "render_mode":  # which the user did not type
        return ""
    try:
        choose("--set key", name, sorted({*arguments(spec)}))
    except ValueError as told:
        return f"; {told}"
    return ""
