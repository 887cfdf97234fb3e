"""Ids of Gymnasium's registry, and the keyword arguments that their environments take."""

from __future__ import annotations

import difflib
import importlib
import inspect
import re

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec, load_env_creator

NOT_ARGUMENTS = {"args", "kwargs", "self"}


def find_spec(id: str) -> EnvSpec:
    """Return what is registered as `id`; of `module:Id-v0` the module is imported first, as `gymnasium.make` does.

    Raises:
        ValueError: no such id, or a module that cannot be imported.
    """
    module, colon, name = id.rpartition(":")
    try:
        if module:
            importlib.import_module(module)
        return gym.spec(name)
    except gym.error.Error:
        near = difflib.get_close_matches(name, gym.registry, n=1, cutoff=0.75)  # the version makes all ids similar
        if near:
            hint = f'; did you mean "{module}{colon}{near[0]}"?'
        elif module:
            hint = f" by importing {module}"
        else:
            hint = f"; one of your own is module:{name}, where importing the module registers it"
        raise ValueError(f'no environment "{name}" is registered{hint}') from None
    except Exception as error:  # importing a module of the user's can fail in any way
        raise ValueError(f'"{id}" cannot be used: {" ".join(str(error).split()) or type(error).__name__}') from error


def arguments(spec: EnvSpec) -> list[str]:
    """Return the names of the keyword arguments that an environment takes."""
    if spec.entry_point is None:
        return []
    creator = spec.entry_point if callable(spec.entry_point) else load_env_creator(spec.entry_point)
    return [name for name in (*inspect.signature(creator).parameters, *spec.kwargs) if name not in NOT_ARGUMENTS]


def unexpected_argument(error: BaseException) -> str | None:
    """Return the name of the keyword argument that Python says is none."""
    found = re.search(r"unexpected keyword argument '(\w+)'", str(error))
    return found[1] if found else None
