"""What changes: the classic-control targets, and where a target's name is looked up.

MuJoCo's targets are in mujoco_physics.py. Every built-in value is a multiple of the nominal one, so that 1.0 is always
the environment as it came; `friction` alone is absolute, as the published Slippery Ant task has it.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium as gym
from gymnasium.envs.classic_control.cartpole import CartPoleEnv
from gymnasium.envs.classic_control.pendulum import PendulumEnv

from envs.parsing import choose
from envs.target import POSITIVE, Target


class ScaledAttributes:
    """Python attributes of an environment, as multiples of their nominal values.

    Args:
        name: the target's name.
        attributes: the attributes of `env.unwrapped` that are scaled.
        low, high: the allowed scales, both included.
        derive: recomputes what the environment derived from the attributes when it was built.
    """

    nominal = 1.0

    def __init__(
        self,
        name: str,
        *attributes: str,
        low: float = POSITIVE[0],
        high: float = POSITIVE[1],
        derive: Callable[[Any], None] = lambda env: None,
    ) -> None:
        self.name = name
        self.low = low
        self.high = high
        self._attributes = attributes
        self._derive = derive

    def validate(self, env: gym.Env[Any, Any]) -> None:
        self._env: Any = env.unwrapped
        self._nominal = {attribute: getattr(self._env, attribute) for attribute in self._attributes}

    def apply(self, value: float) -> None:
        for attribute, nominal in self._nominal.items():
            setattr(self._env, attribute, nominal * value)
        self._derive(self._env)

    def restore(self) -> None:
        self.apply(1.0)  # nominal * 1.0 is nominal, bit for bit


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


def is_mujoco(env: gym.Env[Any, Any]) -> bool:
    """Whether the environment has a MuJoCo `model` and `data`; imports mujoco only if the environment has done so."""
    mujoco = sys.modules.get("mujoco")
    return mujoco is not None and isinstance(getattr(env.unwrapped, "model", None), mujoco.MjModel)


def targets_of(env: gym.Env[Any, Any]) -> Mapping[str, Callable[[], Target]]:
    """Return the built-in targets of this environment, by name; empty where there are none."""
    base: Any = env.unwrapped
    if isinstance(base, CartPoleEnv):
        return CARTPOLE
    if isinstance(base, PendulumEnv):
        return PENDULUM
    if is_mujoco(env):
        from envs.mujoco_physics import MUJOCO

        return MUJOCO
    return {}


def make_target(env: gym.Env[Any, Any], target: Any) -> Target:
    """Return a target of its own for `env`, validated.

    Args:
        env: the environment to be changed.
        target: a name, or an object or class with `validate(env)`, `apply(value)` and `restore()`.

    Raises:
        ValueError: an unknown name (with the names known for this environment), an object without the three methods,
            or a quantity that this environment does not have.
    """
    if isinstance(target, str):
        known = targets_of(env)
        if not known:
            raise ValueError(
                f'no built-in targets for {type(env.unwrapped).__name__}, got "{target}": '
                "pass a class with validate(env), apply(value) and restore() as the target"
            )
        made = known[choose(f"'target' for {type(env.unwrapped).__name__}", target, known)]()
    else:
        made = target() if isinstance(target, type) else copy.copy(target)
        missing = [method for method in ("validate", "apply", "restore") if not callable(getattr(made, method, None))]
        if missing:
            raise ValueError(
                f"a target is a name, or an object or class with validate(env), apply(value) and restore(); "
                f"{target!r} lacks {', '.join(missing)}"
            )
    made.validate(env)
    return made
