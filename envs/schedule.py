"""When the world changes and to what: a schedule is a pure function of (schedule seed, t).

t counts environment steps of all sub-environments together. The time line is cut into regimes 0, 1, 2, ...; regime 0
is in force at t = 0. Which regime is due at t, and the value of regime k, come from a counter-based generator (Philox)
addressed by k, never from a stream that has to be played forward. So every sub-environment, a resumed run and a run
read backwards see the same world without exchanging a message. Values that change all the time are in drift.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from envs.parsing import choose, parse_count
from envs.stream import Stream
from envs.values import Value, What
from envs.when import When

FIRST = ("nominal", "draw")


@dataclass(frozen=True)
class Schedule:
    """When, to what, and how it begins; a pure function of (seed, name, t).

    Args:
        when: the change times.
        to: the values.
        first: `nominal`: regime 0 leaves the environment as it came and regime 1 takes the first value; `draw`: regime
            0 takes the first value.
        seed: the schedule seed, an integer >= 0.
        name: the target's name; schedules of one seed and different names are independent.
        table: the file it was read from, if any; only says how the schedule is written back.
        size: how many entries the values have; None: they are single numbers. Set by the target it is for, and no part
            of what the schedule says.

    Raises:
        ValueError: unknown `first`, or a seed that is not an integer >= 0.
    """

    when: When
    to: What
    first: str = "nominal"
    seed: int = 0
    name: str = ""
    table: str | None = None
    size: int | None = field(default=None, compare=False)
    _stream: Stream = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        choose("'first'", self.first, FIRST)
        parse_count("schedule_seed", self.seed)
        object.__setattr__(self, "_stream", Stream(int(self.seed), self.name))

    def regime(self, t: int) -> int:
        """Return the regime due at t (environment steps, all sub-environments together)."""
        regime = self.when.regime(t, self._stream)
        return regime if self._last is None else min(regime, self._last)

    def start(self, regime: int) -> int | None:
        """Return the first t at which `regime` is due, or None if it never is."""
        if regime == 0:
            return 0
        if self._last is not None and regime > self._last:
            return None  # the list has run out: nothing changes any more, so there is no regime to enter
        return self.when.start(regime, self._stream)

    def value(self, regime: int) -> Value | None:
        """Return the value in force during `regime`; None: the environment's own nominal one."""
        if self.first == "draw":
            return self.to.value(regime, self._stream, self.size)
        return None if regime == 0 else self.to.value(regime - 1, self._stream, self.size)

    def at(self, t: int) -> Value | None:
        """Return the value due at t; None: the environment's own nominal one."""
        return self.value(self.regime(t))

    def span(self, t: int) -> tuple[int, float]:
        """Return the stretch of time around t, [start, end), in which the value is that of t."""
        regime = self.regime(t)
        start, end = self.start(regime), self.start(regime + 1)
        return start or 0, math.inf if end is None else end

    def bounds(self) -> tuple[float, float]:
        """Return the smallest and the largest number that can ever be due in any entry, nominal ones aside."""
        return self.to.bounds(self.size)

    @property
    def _last(self) -> int | None:
        """The regime that never ends, where the values are a list."""
        return None if self.to.length is None else self.to.length - (self.first == "draw")

    def __str__(self) -> str:
        """Return the short form, such as `every:2000000|loguniform:0.02,2.0|draw`; `parse_schedule` reads it back."""
        return "|".join(self.to_dict().values()).removesuffix("|nominal")

    def to_dict(self) -> dict[str, str]:
        """Return the JSON form, `{"when": ..., "to": ..., "first": ...}`; `parse_schedule` reads it back."""
        if self.table is not None:
            return {"when": f"table:{self.table}"}
        return {"when": str(self.when), "to": str(self.to), "first": self.first}
