"""Changes: what changes, when and to what, and where in an episode; how they are written (schedules: grammar.py)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from envs.drift import Drift
from envs.grammar import KEYS, Timeline, parse_schedule, split_short
from envs.parsing import choose

BOUNDARIES = ("episode", "step", "truncate")


@dataclass(frozen=True)
class Change:
    """One thing that changes: what, on which schedule, and where in an episode it takes effect.

    Args:
        target: a target's name, or an object or class with `validate(env)`, `apply(value)` and `restore()`.
        schedule: when and to what, a `Schedule` or a `Drift`; its seed and name are set from the wrapper's
            `schedule_seed` and the target's name.
        boundary: `episode`, `step` or `truncate`; None: the wrapper's, and for a drift always `step`.

    Raises:
        ValueError: an unknown boundary, or a drift that would truncate episodes.
    """

    target: Any
    schedule: Timeline
    boundary: str | None = None

    def __post_init__(self) -> None:
        if self.boundary is not None:
            choose("'boundary'", self.boundary, BOUNDARIES)
        if self.boundary == "truncate" and isinstance(self.schedule, Drift):
            raise ValueError(f"{self.name} drifts, which ends no episode: boundary is step or episode, got truncate")

    @property
    def name(self) -> str:
        """The target's name: what infos and the schedule's random stream are keyed by."""
        if isinstance(self.target, str):
            return self.target
        cls = self.target if isinstance(self.target, type) else type(self.target)
        name = getattr(self.target, "name", None)
        return name if isinstance(name, str) else cls.__name__

    def to_dict(self) -> dict[str, Any]:
        """Return the dict form, JSON if the target is a name; `parse_changes` reads it back."""
        boundary = {} if self.boundary is None else {"boundary": self.boundary}
        return {"target": self.target, **self.schedule.to_dict(), **boundary}


def parse_changes(changes: Any, *, schedule_seed: int = 0) -> list[Change]:
    """Read one change or a list of changes; needs no environment, so a configuration can be checked early.

    Args:
        changes: each a dict with the keys `target`, `boundary` and those of `parse_schedule`, such as
            `{"target": "gravity", "when": "every:5e4", "to": "uniform:0.5,1.5"}`; the short form
            `gravity=every:5e4|uniform:0.5,1.5` or `gravity=sine:1e6,0.5,1.5`; or a `Change`.
        schedule_seed: the seed of all their schedules; each target draws from a stream of its own.

    Raises:
        ValueError: naming the argument, what is allowed, what came, and the nearest right name.
    """
    items = list(changes) if isinstance(changes, Sequence) and not isinstance(changes, str) else [changes]
    parsed = [_parse_change(item, schedule_seed) for item in items]
    if not parsed:
        raise ValueError("changes must name at least one change, got none")
    names = [change.name for change in parsed]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(
                f'changes name the target "{name}" more than once; two changes need two targets '
                "(own target classes may set `name`)"
            )
    return parsed


def _parse_change(item: Any, seed: int) -> Change:
    if isinstance(item, Change):
        return replace(item, schedule=replace(item.schedule, seed=seed, name=item.name))
    if isinstance(item, str):
        name, equals, rest = item.partition("=")
        if not equals:
            raise ValueError(
                f'a change is a dict or "target=when|to", such as "gravity=every:5e4|uniform:0.5,1.5", got {item!r}'
            )
        item = {"target": name.strip(), **split_short(rest, "a change is target=when|to or target=when|to|first")}
    if not isinstance(item, Mapping):
        raise ValueError(f"a change is a dict or text, got {item!r}")
    for key in item:
        choose("key in a change", key, ("target", *KEYS, "boundary"))
    target = item.get("target")
    boundary = item.get("boundary")
    if target is None or target == "":
        raise ValueError(f'a change needs "target", the name of what changes, got {dict(item)!r}')
    schedule = parse_schedule({key: item[key] for key in KEYS if key in item})
    change = Change(target, schedule, boundary)
    return replace(change, schedule=replace(schedule, seed=seed, name=change.name))
