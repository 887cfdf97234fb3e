"""What is in force in one environment, and what is due: the clock, the changes at work, and pins.

The wrapper (nonstationary.py) turns this into Gymnasium's steps, resets and infos.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import gymnasium as gym

from envs.changes import BOUNDARIES, Change
from envs.live import PREFIX, Live
from envs.parsing import choose, parse_count
from envs.values import Value

REGIME = PREFIX + "regime"


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
        self._refuse_overlap()
        for live in self.lives:
            live.put(live.regime, live.span, live.value)
        self.begins, self.actions = self._methods("begin"), self._methods("action")
        self.observations, self.rewards = self._methods("observation"), self._methods("reward")
        # Whether there is always something that moves with the clock, and not only at a change.
        self.restless = any(live.drifts or not getattr(live.target, "repeats", True) for live in self.lives)
        self._plan()

    def due(self, step: int | None = None) -> dict[str, float | int]:
        """Return the values and the regime that the schedules say for t = step (None: now)."""
        t = self.clock if step is None else parse_count("step", step)
        values = {live.key: live.due(t) for live in self.lives}
        return {**values, REGIME: sum(live.schedule.regime(t) for live in self.lives)}

    def applied(self) -> dict[str, float | int]:
        """Return the values and the regime in force."""
        regime = -1 if any(live.regime < 0 for live in self.lives) else sum(live.regime for live in self.lives)
        return {**{live.key: live.reading(live.value) for live in self.lives}, REGIME: regime}

    def state_dict(self) -> dict[str, Any]:
        """Return the clock, whether it is pinned, and by target what is in force and what it remembers."""
        return {
            "clock": self.clock,
            "pinned": self.pinned,
            "lives": {live.name: live.state_dict() for live in self.lives},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Bring a state back into force."""
        for live in self.lives:
            live.load_state_dict(state["lives"][live.name])
        self.clock, self.pinned = state["clock"], state["pinned"]
        self._plan()

    def enter(self, boundaries: Collection[str] = BOUNDARIES) -> bool:
        """Bring the changes of these boundaries up to date with the clock; return whether a regime changed."""
        changed = False
        for live in () if self.pinned else self.lives:
            if live.boundary in boundaries and live.stale(self.clock):
                changed |= live.enter(self.clock)
        self._plan()
        return changed

    def overdue(self) -> bool:
        """Whether an episode must end because its regime has."""
        return not self.pinned and any(live.boundary == "truncate" and live.stale(self.clock) for live in self.lives)

    def pin(self, value: Any, regime: int | None) -> None:
        """Freeze the given values (or one for all, or what is in force), or a regime of the schedule."""
        if value is not None and regime is not None:
            raise ValueError(f"pin takes a value or a regime, got both: {value!r} and regime={regime!r}")
        if regime is not None:
            t = self._start(parse_count("regime", regime))
            for live in self.lives:
                live.enter(t)
        elif value is not None:
            for live, number in self._read_values(value):
                live.pin(number)
        self.pinned = True
        self._plan()

    def _refuse_overlap(self) -> None:
        quantities = [str(getattr(live.target, "quantity", live.name)) for live in self.lives]
        for i, one in enumerate(quantities):
            for j, other in enumerate(quantities):
                if i != j and (one == other or other.startswith(one + ":")):
                    names = ", ".join(live.name for live in self.lives)
                    raise ValueError(f"changes {names} overwrite each other: drop one")

    def _methods(self, name: str) -> list[Callable[..., Any]]:
        methods = [getattr(live.target, name, None) for live in self.lives]
        return [method for method in methods if callable(method)]

    def _read_values(self, value: Any) -> list[tuple[Live, Value]]:
        by_name = {live.name: live for live in self.lives}
        if not isinstance(value, Mapping):
            if len(by_name) > 1:
                raise ValueError(f"pin needs a dict of target -> value for {', '.join(by_name)}, got {value!r}")
            value = dict.fromkeys(by_name, value)
        return [((live := by_name[choose("'target'", name, by_name)]), live.parse(got)) for name, got in value.items()]

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
            if live.boundary != "episode":  # seen to by reset
                self.next = min(self.next, self.clock if live.stale(self.clock) else live.span[1])
