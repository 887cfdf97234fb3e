"""What a target is: one changeable quantity of one environment."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import gymnasium as gym

POSITIVE = (0.01, 100.0)  # of a mass, a length or a force: wider than any useful range, narrow enough to catch slips


@runtime_checkable
class Target(Protocol):
    """One changeable quantity of one environment.

    `NonStationary` calls `validate` once, before anything else. To serve several environments give it the class, or an
    object it can copy: each wrapper works on a copy of its own (`copy.copy`), made before `validate`.

    Optional attributes:
        name (str): what infos and the schedule's random stream are keyed by; default: the class's name.
        nominal (float): what infos report while the environment is as it came; default 1.0.
        low, high (float): the allowed values, both included; schedules that leave them are refused at construction.
        warn_above (float): schedules that exceed it draw a warning at construction.
        quantity (str): what is written, where two targets write the same; they are refused together.
    """

    def validate(self, env: gym.Env[Any, Any]) -> None:
        """Keep `env` and its nominal state; raise ValueError if this environment has no such quantity."""
        ...

    def apply(self, value: float) -> None:
        """Write `value` into the environment: always computed from the nominal state, never from the current one."""
        ...

    def restore(self) -> None:
        """Write the nominal state back, bit for bit."""
        ...
