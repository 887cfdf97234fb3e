"""The physics of Gymnasium's classic control.

Every value is a multiple of the nominal one, so that 1.0 is always the environment as it came.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.classic_control.acrobot import AcrobotEnv
from gymnasium.envs.classic_control.cartpole import CartPoleEnv
from gymnasium.envs.classic_control.continuous_mountain_car import Continuous_MountainCarEnv
from gymnasium.envs.classic_control.mountain_car import MountainCarEnv
from gymnasium.envs.classic_control.pendulum import PendulumEnv

from envs.target import POSITIVE, Target


class ScaledAttributes:
    """Python attributes of an environment, as multiples of their nominal values.

    Args:
        name: the target's name.
        attributes: the attributes of `env.unwrapped` that are scaled, numbers or lists of numbers.
        low, high: the allowed scales, both included.
        squared: those of the attributes that grow with the square of the scale.
        derive: recomputes what the environment derived from the attributes when it was built.
    """

    nominal = 1.0

    def __init__(
        self,
        name: str,
        *attributes: str,
        low: float = POSITIVE[0],
        high: float = POSITIVE[1],
        squared: tuple[str, ...] = (),
        derive: Callable[[Any], None] = lambda env: None,
    ) -> None:
        self.name = name
        self.low = low
        self.high = high
        self._powers = dict.fromkeys(attributes, 1) | dict.fromkeys(squared, 2)
        self._derive = derive

    def validate(self, env: gym.Env[Any, Any]) -> None:
        self._env: Any = env.unwrapped
        self._nominal = {attribute: getattr(self._env, attribute) for attribute in self._powers}

    def apply(self, value: float) -> None:
        for attribute, nominal in self._nominal.items():
            scale = value ** self._powers[attribute]
            setattr(
                self._env, attribute, [x * scale for x in nominal] if isinstance(nominal, list) else nominal * scale
            )
        self._derive(self._env)

    def restore(self) -> None:
        self.apply(1.0)  # nominal * 1.0 is nominal, bit for bit


class AcrobotGravity:
    """Acrobot's gravity, which is a number in the midst of its equations of motion.

    Inertia and Coriolis terms do not depend on the first joint's angle, and the gravity terms change their sign when it
    is turned by pi. So the mean of the equations at both angles is the motion without gravity, and half their
    difference is what gravity adds.
    """

    name, nominal, low, high = "gravity", 1.0, 0.0, 10.0

    def validate(self, env: gym.Env[Any, Any]) -> None:
        self._env: Any = env.unwrapped

    def apply(self, value: float) -> None:
        self.restore()
        motion = self._env._dsdt

        def scaled(state: Any) -> tuple[float, ...]:
            turned = np.array(state, dtype=np.float64)
            turned[0] += math.pi
            up, down = motion(state), motion(turned)
            return tuple((a + b) / 2 + value * (a - b) / 2 for a, b in zip(up, down, strict=True))

        if value != 1:
            self._env._dsdt = scaled

    def restore(self) -> None:
        vars(self._env).pop("_dsdt", None)  # the class's own shows again


class ContinuousMountainCarGravity:
    """MountainCarContinuous's gravity, which is a number in the midst of its step.

    The step adds -0.0025 cos(3 position) to the velocity and clips the sum; what a stronger gravity adds to that is
    added to the velocity before the step.
    """

    name, nominal, low, high = "gravity", 1.0, 0.0, 10.0
    GRAVITY = 0.0025  # Gymnasium's

    def validate(self, env: gym.Env[Any, Any]) -> None:
        self._env: Any = env.unwrapped
        self.restore()

    def apply(self, value: float) -> None:
        self._extra = value - 1

    def restore(self) -> None:
        self._extra = 0.0

    def action(self, action: Any, t: int) -> Any:
        if self._extra:
            position, velocity = (float(x) for x in self._env.state)
            velocity -= self._extra * self.GRAVITY * math.cos(3 * position)
            self._env.state = np.array([position, velocity])
        return action


def _derive_cartpole(env: Any) -> None:
    """CartPole computes these two once, in its constructor; its equations of motion read them."""
    env.total_mass = env.masspole + env.masscart
    env.polemass_length = env.masspole * env.length


CARTPOLE: dict[str, Callable[[], Target]] = {
    "gravity": lambda: ScaledAttributes("gravity", "gravity", low=0.0),
    "masscart": lambda: ScaledAttributes("masscart", "masscart", derive=_derive_cartpole),
    "masspole": lambda: ScaledAttributes("masspole", "masspole", derive=_derive_cartpole),
    "length": lambda: ScaledAttributes("length", "length", derive=_derive_cartpole),
    "force_mag": lambda: ScaledAttributes("force_mag", "force_mag"),
}

PENDULUM: dict[str, Callable[[], Target]] = {
    "gravity": lambda: ScaledAttributes("gravity", "g", low=0.0),
    "mass": lambda: ScaledAttributes("mass", "m"),
    "length": lambda: ScaledAttributes("length", "l"),
    # The action space stays [-2, 2], so a larger limit would change nothing.
    "max_torque": lambda: ScaledAttributes("max_torque", "max_torque", high=1.0),
}

ACROBOT: dict[str, Callable[[], Target]] = {
    "gravity": AcrobotGravity,
    "mass": lambda: ScaledAttributes("mass", "LINK_MASS_1", "LINK_MASS_2", "LINK_MOI"),
    "length": lambda: ScaledAttributes(
        "length", "LINK_LENGTH_1", "LINK_LENGTH_2", "LINK_COM_POS_1", "LINK_COM_POS_2", squared=("LINK_MOI",)
    ),
    "torque": lambda: ScaledAttributes("torque", "AVAIL_TORQUE", low=0.0),
}

MOUNTAIN_CAR: dict[str, Callable[[], Target]] = {
    "gravity": lambda: ScaledAttributes("gravity", "gravity", low=0.0),
    "force": lambda: ScaledAttributes("force", "force", low=0.0),
}

CONTINUOUS_MOUNTAIN_CAR: dict[str, Callable[[], Target]] = {
    "gravity": ContinuousMountainCarGravity,
    "force": lambda: ScaledAttributes("force", "power", low=0.0),
}

CLASSIC_CONTROL: Mapping[type, Mapping[str, Callable[[], Target]]] = {
    CartPoleEnv: CARTPOLE,
    PendulumEnv: PENDULUM,
    AcrobotEnv: ACROBOT,
    MountainCarEnv: MOUNTAIN_CAR,
    Continuous_MountainCarEnv: CONTINUOUS_MOUNTAIN_CAR,
}
