"""What a target is: one changeable quantity of one environment, or of what passes between it and the agent."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import gymnasium as gym

POSITIVE = (0.01, 100.0)  # of a mass, a length or a force: wider than any useful range, narrow enough to catch slips


# The methods that a target may have, and what they are called with.
METHODS: dict[str, tuple[str, ...]] = {
    "validate": ("env",),
    "apply": ("value",),
    "restore": (),
    "check": ("value",),
    "reading": ("value",),
    "begin": (),
    "action": ("action", "t"),
    "observation": ("observation", "t"),
    "observation_space": ("space",),
    "reward": ("reward", "info"),
}


@runtime_checkable
class Target(Protocol):
    """One changeable quantity of one environment.

    `NonStationary` calls `validate` once, before anything else. To serve several environments give it the class, or an
    object it can copy: each wrapper works on a copy of its own (`copy.copy`), made before `validate`.

    Optional attributes, read after `validate`:
        name (str): what infos and the schedule's random stream are keyed by; default: the class's name.
        nominal (float, or (size,)): the value while the environment is as it came; default 1.0.
        low, high (float): the allowed numbers, both included; schedules that leave them are refused at construction.
        warn_above (float): schedules that exceed it draw a warning at construction.
        quantity (str): what is written, where two targets write the same; they are refused together, as are `mass` and
            its part `mass:torso`.
        size (int): the target takes vectors, `apply` gets arrays of shape (size,); a single number from a schedule
            fills all entries.
        boundaries (tuple[str, ...]): where it can take effect; default all, see `NonStationary`.
        repeats (bool): False if equal seeds lead to other observations at another time; default True.
        memory (Any): what it remembers from step to step within an episode; travels with pickles and copies.

    Optional methods:
        check(value): raise ValueError on a value it cannot take; asked at construction of the first values of a
            schedule, and of every pin.
        reading(value) -> float: what infos say of a vector; default: its Euclidean norm.
        begin(): called at each reset, before the environment's own.
        action(action, t): return the action that the environment gets in place of the agent's.
        observation(observation, t): return the observation that the agent gets in place of the environment's.
        observation_space(space): return the space of those observations, given that of the environment's.
        reward(reward, info): return the reward that the agent gets in place of the environment's.
            t: the clock before the step, for actions; after the step or at the reset, for observations. Several
            targets act in the order of the changes. What they do must follow the value in force, and be exactly nothing
            (the same object returned) while it is nominal.
    """

    def validate(self, env: gym.Env[Any, Any]) -> None:
        """Keep `env` and its nominal state; raise ValueError if this environment has no such quantity."""
        ...

    def apply(self, value: Any) -> None:
        """Write `value` into the environment: always computed from the nominal state, never from the current one."""
        ...

    def restore(self) -> None:
        """Write the nominal state back, bit for bit."""
        ...
