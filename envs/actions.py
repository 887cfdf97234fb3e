"""What the agent does, changed: another order of the actions, reversal, gain, delay, actuators that fail."""

from __future__ import annotations

from collections import deque
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from envs.entries import Reordered, check_mask
from envs.values import Vector

MOST_DELAY = 100


def _refuse(name: str, env: gym.Env[Any, Any], why: str) -> ValueError:
    return ValueError(f"target '{name}' does nothing in {type(env.unwrapped).__name__}: {why}, got {env.action_space}")


def _bounded_box(name: str, env: gym.Env[Any, Any]) -> spaces.Box:
    space = env.action_space
    if not isinstance(space, spaces.Box) or not space.is_bounded() or not np.issubdtype(space.dtype, np.floating):
        raise _refuse(name, env, "it needs a bounded Box of floats as the action space")
    return space


class ActionPermutation(Reordered):
    """Another order: of two or more discrete actions, or of the entries of continuous ones.

    Discrete: the agent's action a becomes value[a]. Continuous: entry i of what the environment gets is entry value[i]
    of what the agent said. Infos read the share of actions that are not in their place.
    """

    name = "action_permutation"

    def validate(self, env: gym.Env[Any, Any]) -> None:
        space = env.action_space
        if isinstance(space, spaces.Discrete):
            size, self._start = int(space.n), int(space.start)
        else:
            box = _bounded_box(self.name, env)
            if np.ptp(box.low) or np.ptp(box.high):
                raise _refuse(self.name, env, "it needs actions with the same bounds")
            size = int(np.prod(box.shape))
        if size < 2:
            raise _refuse(self.name, env, "it needs two actions or more")
        self._discrete = isinstance(space, spaces.Discrete)
        self.begin_with(size)

    def action(self, action: Any, t: int) -> Any:
        if self._order is None:
            return action
        if self._discrete:
            return int(self._order[int(action) - self._start]) + self._start
        action = np.asarray(action)
        return action.reshape(-1)[self._order].reshape(action.shape)


class ActionReversal:
    """-1 reverses, 1 leaves as is: discrete actions in their order, continuous ones about the middle of their bounds.

    Of continuous actions each may be reversed by itself (`to: sign`), or all at once (`to: cycle:-1,1`); infos read the
    mean.
    """

    name, low, high = "action_reversal", -1.0, 1.0

    def validate(self, env: gym.Env[Any, Any]) -> None:
        space = env.action_space
        self._reversed: NDArray[np.bool_] | None = None
        if isinstance(space, spaces.Discrete):
            self._ends: Any = 2 * int(space.start) + int(space.n) - 1
        else:
            box = _bounded_box(self.name, env)
            self.size = int(np.prod(box.shape))
            self._ends = box.low + box.high

    def check(self, value: float | Vector) -> None:
        if not np.isin(value, (-1.0, 1.0)).all():
            raise ValueError(f"{self.name} takes -1 (reversed) and 1 (as is), got {value}")

    def apply(self, value: float | Vector) -> None:
        reversed_ = np.asarray(value) < 0
        self._reversed = reversed_ if reversed_.any() else None

    def restore(self) -> None:
        self._reversed = None

    def reading(self, value: Vector) -> float:
        return float(value.mean())

    def action(self, action: Any, t: int) -> Any:
        if self._reversed is None:
            return action
        if isinstance(self._ends, int):
            return self._ends - int(action)
        return np.where(self._reversed.reshape(self._ends.shape), self._ends - action, action)


class ActionGain:
    """A factor on each continuous action, clipped to the bounds of the action space; infos read the mean.

    Negative ones reverse about zero. For all actuators at once give one number, for each its own a vector.
    """

    name, nominal, low, high = "action_gain", 1.0, -10.0, 10.0

    _gain: Vector | None

    def validate(self, env: gym.Env[Any, Any]) -> None:
        self._box = _bounded_box(self.name, env)
        self.size = int(np.prod(self._box.shape))
        self.restore()

    def apply(self, value: Vector) -> None:
        self._gain = None if (value == 1).all() else value.reshape(self._box.shape)

    def restore(self) -> None:
        self._gain = None

    def reading(self, value: Vector) -> float:
        return float(value.mean())

    def action(self, action: Any, t: int) -> Any:
        if self._gain is None:
            return action
        return np.clip(self._gain * action, self._box.low, self._box.high).astype(self._box.dtype)


class ActuatorFailure:
    """Actuators that get 0 (or their bound nearest to it) whatever the agent says: where the value has a 0 and not a 1.

    `to: mask:1` lets one fail, another in each regime. Infos read the share that fails.
    """

    name, nominal, low, high = "actuator_failure", 1.0, 0.0, 1.0

    _failed: NDArray[np.bool_] | None

    def validate(self, env: gym.Env[Any, Any]) -> None:
        box = _bounded_box(self.name, env)
        self.size = int(np.prod(box.shape))
        self._idle = np.clip(0.0, box.low, box.high).astype(box.dtype)
        self.restore()

    def check(self, value: Vector) -> None:
        check_mask(self.name, value)

    def apply(self, value: Vector) -> None:
        self._failed = value.reshape(self._idle.shape) == 0 if (value == 0).any() else None

    def restore(self) -> None:
        self._failed = None

    def reading(self, value: Vector) -> float:
        return 1.0 - float(value.mean())

    def action(self, action: Any, t: int) -> Any:
        return action if self._failed is None else np.where(self._failed, self._idle, action)


class ActionDelay:
    """Actions arrive late by a whole number of this environment's own steps (not times the number of copies).

    Until the first has arrived, continuous environments get 0 (or the bound nearest to it) and discrete ones their
    first action. Actions on their way when the delay changes are overtaken, or repeated: the environment always gets
    what the agent said `value` steps ago. A drift moves in whole steps.
    """

    name, nominal, low, high = "action_delay", 0.0, 0.0, float(MOST_DELAY)

    def validate(self, env: gym.Env[Any, Any]) -> None:
        space = env.action_space
        if isinstance(space, spaces.Discrete):
            self._idle: Any = int(space.start)
        elif isinstance(space, spaces.Box):
            self._idle = np.clip(np.zeros(space.shape, space.dtype), space.low, space.high)
        else:
            raise _refuse(self.name, env, "it needs a Box or a Discrete action space")
        self.memory: deque[Any] = deque(maxlen=MOST_DELAY + 1)
        self.restore()

    def check(self, value: float) -> None:
        if not value.is_integer():
            raise ValueError(f"{self.name} takes whole numbers of steps (to: list or cycle), got {value:g}")

    def apply(self, value: float) -> None:
        self._delay = round(value)

    def restore(self) -> None:
        self._delay = 0

    def begin(self) -> None:
        self.memory.clear()

    def action(self, action: Any, t: int) -> Any:
        self.memory.append(np.copy(action) if isinstance(action, np.ndarray) else action)
        if self._delay == 0:
            return action
        return self.memory[-1 - self._delay] if len(self.memory) > self._delay else self._idle
