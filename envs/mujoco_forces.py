"""Forces on a MuJoCo robot: gravity that is tilted, and pushes."""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import numpy as np

from envs.mujoco_parts import bodies
from envs.mujoco_physics import has_weight
from envs.parsing import choose

STANDARD_GRAVITY = 9.81


class GravityDirection:
    """Gravity turned by an angle in degrees, about the y-axis: at positive ones x is downhill, as on a slope."""

    name, nominal, low, high = "gravity_direction", 0.0, -180.0, 180.0
    quantity = "gravity"  # the same three numbers as the target gravity, which one environment has room for once

    def validate(self, env: gym.Env[Any, Any]) -> None:
        base: Any = env.unwrapped
        self._model = base.model
        self._nominal = base.model.opt.gravity.copy()
        self.apply(90.0)
        moves = has_weight(self._model)
        self.restore()
        if not moves:
            raise ValueError(f"target '{self.name}' does nothing in {type(base).__name__}: it has no gravity")

    def apply(self, value: float) -> None:
        cos, sin = math.cos(math.radians(value)), math.sin(math.radians(value))
        x, y, z = self._nominal
        self._model.opt.gravity[:] = self._nominal if value == 0 else (x * cos - z * sin, y, x * sin + z * cos)

    def restore(self) -> None:
        self._model.opt.gravity[:] = self._nominal


class Push:
    """A steady force along the x-axis on one body, as a multiple of the robot's weight on Earth.

    It acts at the body's centre of mass, in every step while the value is in force. Observations and costs that contain
    contact forces (Ant, Humanoid) contain it too: MuJoCo counts it among the external forces.

    Args:
        body: the body's name; None: the one that the model's first joint moves, which is the torso of those that walk.
    """

    nominal, low, high = 0.0, -10.0, 10.0

    def __init__(self, body: str | None = None) -> None:
        self.name = "push" if body is None else f"push:{body}"
        self._body = body

    def validate(self, env: gym.Env[Any, Any]) -> None:
        base: Any = env.unwrapped
        self._env = base
        names = bodies(base.model)
        if self._body is None:
            self._index = int(base.model.jnt_bodyid[0])
        else:
            self._index = names.index(choose(f"body of {type(base).__name__}", self._body, names))
        if base.model.body_weldid[self._index] == 0:
            raise ValueError(f"target '{self.name}' does nothing in {type(base).__name__}: no joint moves that body")
        self._weight = float(np.sum(base.model.body_mass)) * STANDARD_GRAVITY
        self._force = 0.0

    def apply(self, value: float) -> None:
        self._force = value * self._weight
        self._env.data.xfrc_applied[self._index, 0] = self._force

    def restore(self) -> None:
        self.apply(0.0)

    def action(self, action: Any, t: int) -> Any:
        if self._force:
            self._env.data.xfrc_applied[self._index, 0] = self._force  # a reset clears it
        return action
