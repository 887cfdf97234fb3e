"""What the agent is paid for, changed: the reward's scale and sign, and the direction a robot is to run in."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import gymnasium as gym


class RewardScale:
    """A factor on the reward. Negative ones flip it: `to: cycle:-1,1`."""

    name, nominal, low, high = "reward_scale", 1.0, -100.0, 100.0

    def validate(self, env: gym.Env[Any, Any]) -> None:
        self.restore()

    def apply(self, value: float) -> None:
        self._scale = value

    def restore(self) -> None:
        self._scale = 1.0

    def reward(self, reward: Any, info: Mapping[str, Any]) -> Any:
        return reward if self._scale == 1 else reward * self._scale


class TargetDirection:
    """The direction that the forward reward of a MuJoCo robot pays for, in degrees from the x-axis; 180: backwards.

    The robot's reward w v_x for its forward velocity becomes w (v_x cos(angle) + v_y sin(angle)); the rest of the
    reward, and the info, stay. Robots that live in a plane have v_y = 0. Running back and forth is `to: cycle:180,0`.
    """

    name, nominal, low, high = "target_direction", 0.0, -360.0, 360.0

    def validate(self, env: gym.Env[Any, Any]) -> None:
        base: Any = env.unwrapped
        module = type(base).__module__
        # Ant-v4 has no weight; the others that are paid for running have one.
        self._weight = getattr(base, "_forward_reward_weight", 1.0 if module.endswith(".ant_v4") else None)
        if self._weight is None:
            raise ValueError(
                f"target '{self.name}' does nothing in {type(base).__name__}: its reward pays for no velocity along x"
            )
        self.restore()

    def apply(self, value: float) -> None:
        self._angle = math.radians(value)

    def restore(self) -> None:
        self._angle = 0.0

    def reward(self, reward: Any, info: Mapping[str, Any]) -> Any:
        if self._angle == 0:
            return reward
        x, y = info["x_velocity"], info.get("y_velocity", 0.0)
        return reward + self._weight * (x * (math.cos(self._angle) - 1) + y * math.sin(self._angle))
