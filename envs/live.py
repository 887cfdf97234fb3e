"""One change at work in one environment: its target, and the value in force."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np

from envs.changes import BOUNDARIES, Change
from envs.drift import Drift
from envs.grammar import Timeline
from envs.parsing import choose, parse_number
from envs.physics import make_target
from envs.schedule import Schedule
from envs.values import Listed, Value, Vector

PREFIX = "nonstationary/"
NEVER = (0, 0)  # a span that holds no time: whatever the clock shows, the value is not the one that is due


class Live:
    """One change at work: a target of its own, and the regime and value in force (None: nominal).

    Args:
        change: what changes, when and to what.
        boundary: where it takes effect, unless the change says so itself.
        env: the environment; it must be nominal.

    Raises:
        ValueError: a quantity that this environment does not have, or values that the target cannot take.
    """

    def __init__(self, change: Change, boundary: str, env: gym.Env[Any, Any]) -> None:
        self.name, self.key = change.name, PREFIX + change.name
        self.target = make_target(env, change.target)
        size = getattr(self.target, "size", None)
        self.size: int | None = None if size is None else int(size)
        self.schedule: Timeline = change.schedule
        if isinstance(self.schedule, Schedule):
            self.schedule = replace(self.schedule, size=self.size)
        self.drifts = isinstance(self.schedule, Drift)
        boundaries = getattr(self.target, "boundaries", BOUNDARIES)
        self.boundary = choose(
            f"'boundary' of {self.name}", change.boundary or ("step" if self.drifts else boundary), boundaries
        )
        nominal = getattr(self.target, "nominal", 1.0)
        self.nominal: Value = float(nominal) if self.size is None else np.full(self.size, nominal, np.float64)
        self.low = float(getattr(self.target, "low", -math.inf))
        self.high = float(getattr(self.target, "high", math.inf))
        self._check_schedule()
        self.regime, self.span, self.value = 0, self.schedule.span(0), self._fit(self.schedule.at(0))

    def enter(self, t: int) -> bool:
        """Bring in what is due at t; return whether that is another regime."""
        last = self.regime
        self.put(self.schedule.regime(t), self.schedule.span(t), self._fit(self.schedule.at(t)))
        return self.regime != last

    def put(self, regime: int, span: tuple[int, float], value: Value | None) -> None:
        """Bring a value into force; span: the stretch of time, [start, end), in which it is the one that is due."""
        self.regime, self.span, self.value = regime, span, value
        if value is None:
            self.target.restore()
        else:
            self.target.apply(value)

    def pin(self, value: Value) -> None:
        """Bring a value into force that belongs to no regime."""
        self.put(-1, NEVER, value)

    def state_dict(self) -> dict[str, Any]:
        """Return what is in force, and what the target remembers (not copied)."""
        memory = getattr(self.target, "memory", None)
        return {"regime": self.regime, "span": self.span, "value": self.value, "memory": memory}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Bring a state back into force."""
        self.put(state["regime"], state["span"], state["value"])
        if state["memory"] is not None:
            self.target.memory = copy.copy(state["memory"])  # type: ignore[attr-defined]

    def stale(self, t: int) -> bool:
        """Whether another value than the one in force is due at t."""
        return not self.span[0] <= t < self.span[1]

    def due(self, t: int) -> float:
        """Return what infos say of the value that is due at t."""
        return self.reading(self._fit(self.schedule.at(t)))

    def reading(self, value: Value | None) -> float:
        """Return what infos say of a value: itself, or a vector's size as its target measures it."""
        value = self.nominal if value is None else value
        if isinstance(value, float):
            return value
        measure = getattr(self.target, "reading", np.linalg.norm)
        return float(measure(value))

    def told(self) -> Vector:
        """Return the value in force as the agent is told of it, of shape (1,) or (size,)."""
        return np.atleast_1d(np.asarray(self.nominal if self.value is None else self.value, np.float64))

    def room(self) -> tuple[Vector, Vector]:
        """Return the lowest and the highest that `told` can return."""
        shape = (self.size or 1,)
        return np.full(shape, self.low), np.full(shape, self.high)

    def parse(self, got: object) -> Value:
        """Return a value given by a user, as the target takes it."""
        if self.size is None or not isinstance(got, Sequence | np.ndarray) or isinstance(got, str):
            value = self._fit(parse_number(self.name, got))
        else:
            value = np.array([parse_number(f"an entry of {self.name}", entry) for entry in got])
            if value.shape != (self.size,):
                raise ValueError(f"{self.name} takes {self.size} numbers, got {got!r}")
        assert value is not None
        self._check(value)
        return value

    def _fit(self, value: Value | None) -> Value | None:
        """Spread a single number over the entries of a target that takes a vector."""
        return np.full(self.size, value) if self.size is not None and isinstance(value, float) else value

    def _check_schedule(self) -> None:
        schedule, values = self.schedule, range(1)
        if isinstance(schedule, Schedule):
            if schedule.to.vector and self.size is None:
                raise ValueError(f"{self.name} takes one number, and to: {schedule.to} draws a vector")
            values = range(len(schedule.to.values) if isinstance(schedule.to, Listed) else 4)
        low, high = schedule.bounds()
        try:
            self._check_range(low)
            self._check_range(high)
            for index in values:
                value = schedule.at(0) if isinstance(schedule, Drift) else schedule.value(index + 1)
                self._check(self._fit(value))
        except ValueError as error:  # what was typed, beside the value that it led to
            raise ValueError(f"{error} from {schedule}") from None
        if high > getattr(self.target, "warn_above", math.inf):
            warnings.warn(f"{self.name} up to {high:g} is unphysical: bodies sink into each other", stacklevel=6)

    def _check(self, value: Value | None) -> None:
        self._check_range(float(np.min(value)) if value is not None else self.low)
        self._check_range(float(np.max(value)) if value is not None else self.high)
        if value is not None and callable(check := getattr(self.target, "check", None)):
            check(value)

    def _check_range(self, number: float) -> None:
        if not self.low <= number <= self.high:
            raise ValueError(f"{self.name} must be in [{self.low:g}, {self.high:g}], got {number:g}")
