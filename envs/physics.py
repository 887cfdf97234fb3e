"""Where a target's name is looked up: the physics of an environment, and the perturbations that all have.

Physics are in classic_control.py, box2d_physics.py and mujoco_targets.py, perturbations in perturbations.py. A new
target is one class there and one entry in its table.
"""

from __future__ import annotations

import copy
import inspect
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import gymnasium as gym

from envs.classic_control import CLASSIC_CONTROL
from envs.parsing import choose
from envs.perturbations import PERTURBATIONS
from envs.snapshot import is_mujoco
from envs.switch import Task, TaskSwitch
from envs.target import METHODS, Target


def targets_of(env: gym.Env[Any, Any]) -> Mapping[str, Callable[[], Target]]:
    """Return the built-in targets of this environment, by name: its physics, if known, and the perturbations."""
    return {**_physics(env), **PERTURBATIONS}


def acting_targets(env: gym.Env[Any, Any]) -> Mapping[str, Callable[[], Target]]:
    """Return those of `targets_of` that do something in this environment; each is tried."""
    acting = {}
    for name, make in targets_of(env).items():
        with suppress(ValueError):
            make().validate(env)
            acting[name] = make
    return acting


def parts_of(env: gym.Env[Any, Any]) -> Mapping[str, Callable[[str], Target]]:
    """Return the built-in targets that have parts, such as `mass:torso`, by their name without the part."""
    if is_mujoco(env):
        from envs.mujoco_targets import MUJOCO_PARTS

        return MUJOCO_PARTS
    return {}


def _physics(env: gym.Env[Any, Any]) -> Mapping[str, Callable[[], Target]]:
    base: Any = env.unwrapped
    for env_class, targets in CLASSIC_CONTROL.items():
        if isinstance(base, env_class):
            return targets
    if isinstance(base, TaskSwitch):
        return {"task": Task}
    if is_mujoco(env):
        from envs.mujoco_targets import MUJOCO

        return MUJOCO
    lunar_lander = sys.modules.get("gymnasium.envs.box2d.lunar_lander")
    if lunar_lander is not None and isinstance(base, lunar_lander.LunarLander):
        from envs.box2d_physics import LUNAR_LANDER

        return LUNAR_LANDER
    return {}


def make_target(env: gym.Env[Any, Any], target: Any) -> Target:
    """Return a target of its own for `env`, validated.

    Args:
        env: the environment to be changed.
        target: a name, one with a part such as `mass:torso`, or an object or class with `validate(env)`,
            `apply(value)` and `restore()`.

    Raises:
        ValueError: an unknown name (with the names that act in this environment), an object without the three methods
            or with one that takes other arguments, or a quantity that this environment does not have.
    """
    if isinstance(target, str):
        made = _named(env, target)
    else:
        made = target() if isinstance(target, type) else copy.copy(target)
        missing = [method for method in ("validate", "apply", "restore") if not callable(getattr(made, method, None))]
        if missing:
            raise ValueError(
                f"a target is a name, or an object or class with validate(env), apply(value) and restore(); "
                f"{target!r} lacks {', '.join(missing)}"
            )
        _check_signatures(made)
    made.validate(env)
    return made


def _check_signatures(target: Any) -> None:
    """Refuse methods that cannot be called as they will be."""
    for name, wanted in METHODS.items():
        method = getattr(target, name, None)
        if not callable(method):
            continue
        try:
            signature = inspect.signature(method)
        except ValueError:  # compiled code, which need not say
            continue
        try:
            signature.bind(*wanted)
        except TypeError:
            raise ValueError(
                f"{type(target).__name__}.{name} is called with {len(wanted) or 'no'} "
                f"argument{'s' * (len(wanted) != 1)}: write def {name}({', '.join(('self', *wanted))}), got "
                f"{name}{signature} beside self"
            ) from None


def _named(env: gym.Env[Any, Any], target: str) -> Target:
    known = targets_of(env)
    if target in known:
        return known[target]()
    name, colon, part = target.partition(":")
    base = type(env.unwrapped).__name__
    parts = parts_of(env)
    if colon and parts:
        return parts[choose(f"'target' with parts for {base}", name, parts)](part)
    if colon:
        raise ValueError(f'targets of {base} have no parts such as "{part}", got "{target}"')
    acting = acting_targets(env)
    try:
        return acting[choose(f"'target' for {base}", target, acting)]()
    except ValueError as error:
        own = "; for its physics pass a class with validate(env), apply(value) and restore() as the target"
        raise ValueError(f"{error}{'' if _physics(env) else own}") from None
