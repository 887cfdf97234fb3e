"""What the parts of an environment are to a checkpoint: state, a constant, a picture of it, or closed to us."""

from __future__ import annotations

import functools
import logging
import re
import types
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec

NAMED = (type, types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.ModuleType, np.ufunc)
VALUES = (complex, range, slice, np.dtype, re.Pattern, PurePath, type(...))  # compared by what they print as
NAMELESS = (functools.partial, logging.Logger, logging.LoggerAdapter, EnvSpec, property)
# What draws an environment; never a part of its state.
DRAWING = {"pygame", "glfw", "OpenGL", "PIL", "cv2", "matplotlib", "moviepy", "imageio", "tkinter", "pyglet"}
GYMNASIUM_DRAWING = "gymnasium.envs.mujoco.mujoco_rendering"
MUJOCO_DRAWING = ("mujoco.renderer", "mujoco._render", "mujoco.viewer")


def layers_of(env: gym.Env[Any, Any]) -> Iterator[gym.Env[Any, Any]]:
    """Yield the wrappers of an environment from the outermost one, and the environment itself last."""
    while isinstance(env, gym.Wrapper):
        yield env
        env = env.env
    yield env


def has_protocol(value: object) -> bool:
    """Whether the class says itself what its state is."""
    kind = type(value)
    return callable(getattr(kind, "state_dict", None)) and callable(getattr(kind, "load_state_dict", None))


def constant(value: object) -> str | None:
    """Return what must be found again where this value was, or None if it is no constant."""
    if isinstance(value, NAMED):
        return f"{type(value).__name__} {getattr(value, '__qualname__', getattr(value, '__name__', ''))}"
    if isinstance(value, VALUES):
        return repr(value)
    return type(value).__name__ if isinstance(value, NAMELESS) else None


def is_drawing(value: object) -> bool:
    """Whether this only serves to draw the environment: windows, surfaces, clocks of frames, renderers."""
    module = type(value).__module__
    return module.partition(".")[0] in DRAWING or module == GYMNASIUM_DRAWING or module.startswith(MUJOCO_DRAWING)


def is_open(value: object) -> bool:
    """Whether an object's attributes are all there is to it: its class is written in Python, all the way down."""
    kind = type(value)
    if kind.__new__ is not object.__new__ or hasattr(kind, "thisown"):  # the latter: SWIG's, such as Box2D's bodies
        return False
    return hasattr(value, "__dict__") or any("__slots__" in vars(base) for base in kind.__mro__)


def attributes(value: object) -> dict[str, Any]:
    """Return an object's attributes, those in slots included."""
    slots = [vars(base).get("__slots__", ()) for base in type(value).__mro__]
    names = [name for some in slots for name in ([some] if isinstance(some, str) else some)]
    found = {name: getattr(value, name) for name in names if not name.startswith("__") and hasattr(value, name)}
    return {**found, **getattr(value, "__dict__", {})}


def class_name(value: object) -> str:
    """Return where a value's class is found, as `module:name`."""
    return f"{type(value).__module__}:{type(value).__qualname__}"


def spaces_in(space: gym.Space[Any]) -> Iterator[gym.Space[Any]]:
    """Yield a space and those it is made of, each of which draws from a generator of its own."""
    yield space
    for part in vars(space).values():
        parts = part.values() if isinstance(part, dict) else part if isinstance(part, tuple | list) else (part,)
        for inner in parts:
            if isinstance(inner, gym.Space):
                yield from spaces_in(inner)
