"""The targets of MuJoCo environments, by name; as multiples of the nominal values unless they say otherwise."""

from __future__ import annotations

from collections.abc import Callable

from envs.mujoco_forces import GravityDirection, Push
from envs.mujoco_parts import Part, actuators, bodies, body_mass, joint_damping, joints
from envs.mujoco_physics import Friction, ModelArrays, damping, has_weight, set_const
from envs.target import POSITIVE, Target

MUJOCO: dict[str, Callable[[], Target]] = {
    "friction": lambda: Friction("friction", absolute=True),
    "friction_scale": lambda: Friction("friction_scale", absolute=False),
    "gravity": lambda: ModelArrays(
        "gravity", lambda m: [m.opt.gravity], has_weight, "gravity moves none of its joints", low=0.0, high=10.0
    ),
    "mass": lambda: ModelArrays(
        "mass",
        lambda m: [m.body_mass, m.body_inertia],
        lambda m: bool((m.body_mass > 0).any()),
        "no body has mass",
        after=set_const,
    ),
    "damping": lambda: ModelArrays(
        "damping", damping, lambda m: any((a != 0).any() for a in damping(m)), "no joint is damped", low=0.0
    ),
    # Of what derives from the gear, muscles alone would read it (actuator_acc0).
    "gear": lambda: ModelArrays(
        "gear", lambda m: [m.actuator_gear], lambda m: m.nu > 0, "it has no actuators", low=0.0, after=set_const
    ),
    "gravity_direction": GravityDirection,
    "push": Push,
}

MUJOCO_PARTS: dict[str, Callable[[str], Target]] = {
    "mass": lambda part: Part(
        "mass", part, "body", bodies, body_mass, "that body has no mass", low=POSITIVE[0], after=set_const
    ),
    "damping": lambda part: Part("damping", part, "joint", joints, joint_damping, "that joint is not damped", low=0.0),
    "gear": lambda part: Part(
        "gear",
        part,
        "actuator",
        actuators,
        lambda model, i: [model.actuator_gear[i : i + 1]],
        "that actuator has no gear",
        low=0.0,
        after=set_const,
    ),
    "push": Push,
}
