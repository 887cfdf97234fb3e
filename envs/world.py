"""What is in force in one environment, and what is due: the clock, the changes at work, and pins.

The wrapper (nonstationary.py) turns this into Gymnasium's steps, resets and infos.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import gymnasium as gym

from envs.changes import BOUNDARIES, Change
from envs.parsing import choose, parse_count, parse_number
from envs.physics import make_target

PREFIX = "nonstationary/"
REGIME = PREFIX + "regime"


class Live:
    """One change at work: a target of its own, and the regime and value in force (None: nominal)."""

    def __init__(self, change: Change, boundary: str, env: gym.Env[Any, Any]) -> None:
        self.name, self.key, self.schedule = change.name, PREFIX + change.name, change.schedule
        self.boundary = change.boundary or boundary
        self.target = make_target(env, change.target)
        self.nominal = float(getattr(self.target, "nominal", 1.0))
        self.low = float(getattr(self.target, "low", -math.inf))
        self.high = float(getattr(self.target, "high", math.inf))
        self.regime, self.value = 0, self.schedule.value(0)

    def check(self, *values: float) -> None:
        for value in values:
            if not self.low <= value <= self.high:
                raise ValueError(f"{self.name} must be in [{self.low:g}, {self.high:g}], got {value:g}")

    def put(self, regime: int, value: float | None) -> None:
        """Bring a regime into force."""
        self.regime, self.value = regime, value
        if value is None:
            self.target.restore()
        else:
            self.target.apply(value)

    def reading(self, value: float | None) -> float:
        return self.nominal if value is None else value


class World:
    """All changes of one environment against one clock.

    Args:
        changes: what changes; the environment must be nominal.
        boundary: the boundary of changes that name none.
        env: the environment.

    Raises:
        ValueError: a quantity that this environment does not have, or values outside the target's allowed range;
            the environment is then left as it came.
    """

    def __init__(self, changes: Sequence[Change], boundary: str, env: gym.Env[Any, Any]) -> None:
        self.lives = [Live(change, boundary, env) for change in changes]
        self.clock = 0
        self.pinned = False
        self.next = math.inf  # the next t at which a step has anything to do, so that all others cost one comparison
        for live in self.lives:
            low, high = live.schedule.bounds()
            live.check(low, high)
            if high > getattr(live.target, "warn_above", math.inf):
                warnings.warn(f"{live.name} up to {high:g} is unphysical: bodies sink into each other", stacklevel=4)
        quantities = [getattr(live.target, "quantity", live.name) for live in self.lives]
        if len(set(quantities)) < len(quantities):
            raise ValueError(f"changes {', '.join(live.name for live in self.lives)} overwrite each other: drop one")
        for live in self.lives:
            live.put(live.regime, live.value)
        self._plan()

    def due(self, step: int | None = None) -> dict[str, float | int]:
        """Return the values and the regime that the schedules say for t = step (None: now)."""
        t = self.clock if step is None else parse_count("step", step)
        regimes = [live.schedule.regime(t) for live in self.lives]
        values = [live.reading(live.schedule.value(k)) for live, k in zip(self.lives, regimes, strict=True)]
        return {**dict(zip((live.key for live in self.lives), values, strict=True)), REGIME: sum(regimes)}

    def applied(self) -> dict[str, float | int]:
        """Return the values and the regime in force."""
        regime = -1 if any(live.regime < 0 for live in self.lives) else sum(live.regime for live in self.lives)
        return {**{live.key: live.reading(live.value) for live in self.lives}, REGIME: regime}

    def enter(self, boundaries: Collection[str] = BOUNDARIES) -> bool:
        """Bring the changes of these boundaries up to date with the clock; return whether anything changed."""
        entered = False
        for live in () if self.pinned else self.lives:
            if live.boundary in boundaries and (regime := live.schedule.regime(self.clock)) != live.regime:
                live.put(regime, live.schedule.value(regime))
                entered = True
        self._plan()
        return entered

    def overdue(self) -> bool:
        """Whether an episode must end because its regime has."""
        return not self.pinned and any(
            live.boundary == "truncate" and live.schedule.regime(self.clock) != live.regime for live in self.lives
        )

    def pin(self, value: float | Mapping[str, float] | None, regime: int | None) -> None:
        """Freeze the given values (or one for all, or what is in force), or a regime of the schedule."""
        if value is not None and regime is not None:
            raise ValueError(f"pin takes a value or a regime, got both: {value!r} and regime={regime!r}")
        if regime is not None:
            t = self._start(parse_count("regime", regime))
            for live in self.lives:
                k = live.schedule.regime(t)
                live.put(k, live.schedule.value(k))
        elif value is not None:
            for live, number in self._read_values(value):
                live.put(-1, number)
        self.pinned = True
        self._plan()

    def _read_values(self, value: float | Mapping[str, float]) -> list[tuple[Live, float]]:
        by_name = {live.name: live for live in self.lives}
        if not isinstance(value, Mapping):
            if len(by_name) > 1:
                raise ValueError(f"pin needs a dict of target -> value for {', '.join(by_name)}, got {value!r}")
            value = dict.fromkeys(by_name, value)
        read = [(by_name[choose("'target'", name, by_name)], parse_number(name, got)) for name, got in value.items()]
        for live, number in read:
            live.check(number)
        return read

    def _start(self, regime: int) -> int:
        """Return the first t at which at least `regime` changes are due, over all targets."""
        t = 0
        while sum(now := [live.schedule.regime(t) for live in self.lives]) < regime:
            starts = [live.schedule.start(k + 1) for live, k in zip(self.lives, now, strict=True)]
            if not (coming := [start for start in starts if start is not None]):
                raise ValueError(f"regime must be in [0, {sum(now)}], the schedule's last, got {regime}")
            t = min(coming)
        return t

    def _plan(self) -> None:
        self.next = math.inf
        for live in () if self.pinned else self.lives:
            if live.boundary == "episode":
                continue  # seen to by reset
            regime = live.schedule.regime(self.clock)
            start = self.clock if regime != live.regime else live.schedule.start(regime + 1)
            self.next = min(self.next, math.inf if start is None else start)
