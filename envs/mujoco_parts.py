"""Parts of a MuJoCo model by name: the mass of one body, the damping of one joint, the gear of one actuator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym

from envs.mujoco_physics import AT_JOINT, Array, ModelArrays, damping
from envs.parsing import choose


class Part(ModelArrays):
    """The rows of the model's arrays that belong to one body, joint or actuator, as multiples of their nominal values.

    Args:
        quantity: the target's name without its part, such as `mass`.
        part: the part's name, such as `torso`.
        kind: what a part is, for errors.
        names: returns the names of all parts.
        arrays: returns views of the rows of part number i.
        otherwise: what the error says if these rows are all zero, so that no multiple has any effect.
        low: the smallest allowed multiple.
        after: run on the model after each write.
    """

    def __init__(
        self,
        quantity: str,
        part: str,
        kind: str,
        names: Callable[[Any], list[str]],
        arrays: Callable[[Any, int], list[Array]],
        otherwise: str,
        *,
        low: float,
        after: Callable[[Any], None] = lambda model: None,
    ) -> None:
        super().__init__(
            f"{quantity}:{part}",
            lambda model: arrays(model, self._index),
            lambda model: any((array != 0).any() for array in arrays(model, self._index)),
            otherwise,
            low=low,
            after=after,
        )
        self._part, self._kind, self._names = part, kind, names

    def validate(self, env: gym.Env[Any, Any]) -> None:
        base: Any = env.unwrapped
        names = self._names(base.model)
        self._index = names.index(choose(f"{self._kind} of {type(base).__name__}", self._part, names))
        super().validate(env)


def bodies(model: Any) -> list[str]:
    """Return the names of the bodies, by number; a nameless one is called by its number."""
    return [model.body(i).name or str(i) for i in range(model.nbody)]


def joints(model: Any) -> list[str]:
    """Return the names of the joints, by number; a nameless one is called by its number."""
    return [model.joint(i).name or str(i) for i in range(model.njnt)]


def actuators(model: Any) -> list[str]:
    """Return the names of the actuators, by number; a nameless one is called by its joint, or its number."""
    named = joints(model)
    at_joint = model.actuator_trntype == AT_JOINT
    return [
        model.actuator(i).name or (named[model.actuator_trnid[i, 0]] if at_joint[i] else str(i))
        for i in range(model.nu)
    ]


def body_mass(model: Any, i: int) -> list[Array]:
    """Return views of what makes the mass of body i: halves of a mass edit would be trap 3."""
    return [model.body_mass[i : i + 1], model.body_inertia[i : i + 1]]


def joint_damping(model: Any, i: int) -> list[Array]:
    """Return views of the damping of joint i: by dof address, of which a ball or free joint has several."""
    first = int(model.jnt_dofadr[i])
    last = int(model.jnt_dofadr[i + 1]) if i + 1 < model.njnt else model.nv
    return [array[first:last] for array in damping(model)]
