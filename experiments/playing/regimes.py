"""Which regimes are played, and what the run itself earned in them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from agents.clock import PREFIX
from agents.frozen import Env, FrozenRegimes
from experiments.environment import make_env
from experiments.errors import BadInput
from experiments.history import History
from experiments.playing.agent import Trained
from experiments.schema import EnvSettings

SHOWN = 10  # regimes that are played where none are named


class Still(gym.Wrapper[Any, Any, Any, Any]):
    """A stationary environment, as one that changes and has a single regime."""

    def pin(self, *, regime: int) -> None:
        """There is nothing to freeze."""
        if regime != 0:
            raise ValueError(f"regime must be 0, the only one of an environment that is stationary, got {regime}")

    def set_clock(self, step: int) -> None:
        """There is no time."""

    def due(self, step: int | None = None) -> dict[str, float | int]:
        """The regime."""
        return {PREFIX + "regime": 0}

    def applied(self) -> dict[str, float | int]:
        """The regime."""
        return {PREFIX + "regime": 0}


def make_frozen(settings: EnvSettings) -> Env:
    """An environment of the run that can be frozen in a regime."""
    env = make_env(settings)
    return env if env.has_wrapper_attr("pin") else Still(env)


def chosen(text: str | None, met: int, frozen: FrozenRegimes) -> list[int]:
    """The regimes that the words ask for; raises `BadInput`. met: the last one that the run has met."""
    if text is None:
        return list(range(max(0, met + 1 - SHOWN), met + 1))
    if text == "all":
        return list(range(met + 1))
    numbers: list[int] = []
    for word in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", word)
        if not match or int(match[2] or match[1]) < int(match[1]):
            raise BadInput(f'--regimes must be numbers and ranges such as 0,3 or 0-9, or "all", got "{text}"')
        numbers += range(int(match[1]), int(match[2] or match[1]) + 1)
    wrong = next((number for number in sorted(set(numbers)) if not frozen.exists(number)), None)
    if wrong is not None:
        last = next(number for number in reversed(range(wrong)) if frozen.exists(number))
        raise BadInput(f"--regimes must be within 0-{last}, all that this world's schedule has, got {wrong}")
    return list(dict.fromkeys(numbers))


def values(frozen: FrozenRegimes, env: Env, regimes: Iterable[int]) -> dict[int, dict[str, float]]:
    """regime -> target -> the value in force."""
    found = {}
    for regime in regimes:
        frozen.begin(env, regime, 0)
        applied = env.get_wrapper_attr("applied")()
        found[regime] = {k.removeprefix(PREFIX): float(v) for k, v in applied.items() if k != PREFIX + "regime"}
    return found


def in_training(trained: Trained) -> dict[int, float]:
    """regime -> mean return of the last tenth of the episodes that the run had in it by the step that is played."""
    by_regime: dict[int, list[float]] = {}
    for row in History(trained.folder).episodes:
        if int(row["step"]) <= trained.step:
            by_regime.setdefault(int(row["regime"]), []).append(float(row["return"]))
    return {regime: _last_tenth(returns) for regime, returns in by_regime.items()}


def _last_tenth(returns: Sequence[float]) -> float:
    return float(np.mean(returns[-max(1, len(returns) // 10) :]))
