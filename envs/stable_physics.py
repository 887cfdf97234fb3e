"""Episodes of MuJoCo whose simulation breaks down are cut, and said to be.

MuJoCo then begins the simulation anew in the middle of a step, prints a warning, writes it to MUJOCO_LOG.TXT in the
working directory, and goes on; to the agent it looks like a jump.
"""

from __future__ import annotations

import logging
from functools import cache
from typing import Any

import gymnasium as gym
import numpy as np

from envs.halves import Result
from envs.snapshot import is_mujoco

UNSTABLE = "unstable_physics"  # the key in infos
BAD = ("mjWARN_BADQPOS", "mjWARN_BADQVEL", "mjWARN_BADQACC", "mjWARN_BADCTRL")
NONE = bytes(4 * len(BAD))  # their counts, of four bytes each, while there are none


def stable_physics(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    """Return the environment in `StablePhysics` if it is one of MuJoCo's, and as it is otherwise."""
    return StablePhysics(env) if is_mujoco(env) else env


class StablePhysics(gym.Wrapper[Any, Any, Any, Any]):
    """End the episode when MuJoCo's simulation breaks down: a position, velocity, acceleration or control gone bad.

    That step is truncated, never terminated; its reward is 0, since it would be paid for a jump; its observation is the
    one that MuJoCo left, with zeros for what is not finite; and `info["unstable_physics"]` names the warning. All other
    steps are untouched. MuJoCo's own warnings go to Python's logging (`envs.stable_physics`, level INFO) in place of
    stderr and a file, unless a program has set a handler of its own (`mujoco.set_mju_user_warning`).

    Args:
        env: an environment with a MuJoCo `model` and `data`.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        _quieten()
        self._watch()

    def step(self, action: Any) -> Result:
        """Step the environment, and look at MuJoCo's counts of warnings."""
        return self.after_step(*self.env.step(action))

    def after_step(
        self, observation: Any, reward: Any, terminated: bool, truncated: bool, info: dict[str, Any]
    ) -> Result:
        """Return what a step returns, given what the environment's own did."""
        if self._counts.tobytes() != NONE:  # a tenth of the time of any()
            return self._cut(observation, reward, terminated, truncated, info)
        return observation, reward, terminated, truncated, info

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: the counts are MuJoCo's."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Do nothing."""

    def _watch(self) -> None:
        import mujoco

        base: Any = self.unwrapped
        first = getattr(mujoco.mjtWarning, BAD[0]).value  # the four follow one another
        self._counts = base.data.warning.number[first : first + len(BAD)]  # a view of MuJoCo's memory

    def _cut(self, observation: Any, reward: Any, terminated: bool, truncated: bool, info: dict[str, Any]) -> Result:
        names = [name for name, count in zip(BAD, self._counts, strict=True) if count]
        self._counts[:] = 0
        info[UNSTABLE] = ", ".join(names)
        return _finite(observation), 0.0, False, True, info

    # Copies and pickles have a simulation of their own.

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "_counts"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        _quieten()
        self._watch()


def _finite(observation: Any) -> Any:
    if isinstance(observation, dict):
        return {key: _finite(value) for key, value in observation.items()}
    if isinstance(observation, np.ndarray) and observation.dtype.kind == "f":
        return np.nan_to_num(observation, nan=0.0, posinf=0.0, neginf=0.0)
    return observation


@cache
def _quieten() -> None:
    """Take MuJoCo's warnings, once in a process."""
    import mujoco

    if mujoco.get_mju_user_warning() is None:
        mujoco.set_mju_user_warning(logging.getLogger(__name__).info)
