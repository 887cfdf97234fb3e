"""LunarLander's physics: gravity, and the wind.

The module's constants (engine power and the like) are left alone: changed there, they would change in every other
LunarLander of the process.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym

from envs.target import Target


class LanderGravity:
    """Gravity as a multiple of the nominal one, in the world that is and in those that resets will build."""

    name, nominal, low, high = "gravity", 1.0, 0.01, 3.0

    def validate(self, env: gym.Env[Any, Any]) -> None:
        base: Any = env.unwrapped
        self._env, self._nominal = base, base.gravity

    def apply(self, value: float) -> None:
        self._env.gravity = self._nominal * value
        if self._env.world is not None:
            self._env.world.gravity = (0, self._env.gravity)

    def restore(self) -> None:
        self.apply(1.0)


class LanderWind:
    """The strength of the wind, `wind_power` or `turbulence_power`, in Gymnasium's own units.

    Args:
        name: the attribute and the target's name.
        high: the largest value that Gymnasium recommends.
    """

    low = 0.0

    def __init__(self, name: str, high: float) -> None:
        self.name, self.high = name, high

    def validate(self, env: gym.Env[Any, Any]) -> None:
        base: Any = env.unwrapped
        if not base.enable_wind:
            raise ValueError(
                f"target '{self.name}' does nothing in {type(base).__name__}: build it with enable_wind=True"
            )
        self._env, self._nominal = base, getattr(base, self.name)
        self.nominal = float(self._nominal)

    def apply(self, value: float) -> None:
        setattr(self._env, self.name, value)

    def restore(self) -> None:
        setattr(self._env, self.name, self._nominal)


LUNAR_LANDER: dict[str, Callable[[], Target]] = {
    "gravity": LanderGravity,
    "wind_power": lambda: LanderWind("wind_power", 20.0),
    "turbulence_power": lambda: LanderWind("turbulence_power", 2.0),
}
