"""What pickling and copying an environment would lose.

MuJoCo environments pickle as their constructor call: a copy has nominal physics, a new random generator and a
simulation at its start, silently. Other environments pickle their attributes, changed physics included, which a target
would then take for nominal. `NonStationary` therefore copies environments at their nominal physics, carries the rest
here, and re-applies the changes.
"""

from __future__ import annotations

import sys
from typing import Any

import gymnasium as gym

ATTRIBUTES = ("_np_random", "_np_random_seed", "spec")


def is_mujoco(env: gym.Env[Any, Any]) -> bool:
    """Whether the environment has a MuJoCo `model` and `data`; imports mujoco only if the environment has done so."""
    mujoco = sys.modules.get("mujoco")
    return mujoco is not None and isinstance(getattr(env.unwrapped, "model", None), mujoco.MjModel)


def save(env: gym.Env[Any, Any]) -> dict[str, Any]:
    """Return the random generator, the spec and, in MuJoCo, the simulation state of `env` (not copied)."""
    base: Any = env.unwrapped
    state = {name: vars(base)[name] for name in ATTRIBUTES if name in vars(base)}
    return {"attributes": state, "data": base.data if is_mujoco(env) else None}


def load(env: gym.Env[Any, Any], state: dict[str, Any]) -> None:
    """Put a saved state into a copy of the environment it was saved from."""
    base: Any = env.unwrapped
    vars(base).update(state["attributes"])
    if state["data"] is not None:
        from envs.mujoco_physics import copy_data

        copy_data(base, state["data"])
