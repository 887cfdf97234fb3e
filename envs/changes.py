"""How changes are written: short strings and dicts, both JSON, read with errors that teach.

A new kind of schedule is one class in schedule.py and one entry in `WHEN` or `WHAT` here.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from envs.parsing import choose, parse_number, parse_steps
from envs.schedule import At, Every, Listed, LogUniform, Poisson, Schedule, Uniform, What, When
from envs.table import read_table

BOUNDARIES = ("episode", "step", "truncate")


def _every(body: str) -> When:
    return Every(parse_steps("the period in when: every", body))


def _poisson(body: str) -> When:
    mean = parse_number("the mean in when: poisson", body)
    if mean < 1:
        raise ValueError(f"the mean in when: poisson must be >= 1 environment step, got {body!r}")
    return Poisson(mean)


def _at(body: str) -> When:
    times = tuple(parse_steps("a time in when: at", item) for item in _items("when: at", body))
    if any(b <= a for a, b in itertools.pairwise(times)):
        raise ValueError(f"the times in when: at must increase, got {body!r}")
    return At(times)


def _range(kind: str, body: str) -> tuple[float, float]:
    values = _values(kind, body)
    if len(values) != 2 or values[0] > values[1]:
        raise ValueError(f"to: {kind} takes low,high with low <= high, got {body!r}")
    return values[0], values[1]


def _loguniform(body: str) -> What:
    low, high = _range("loguniform", body)
    if low <= 0:
        raise ValueError(f"to: loguniform needs low > 0, got {body!r}")
    return LogUniform(low, high)


def _values(kind: str, body: str) -> tuple[float, ...]:
    return tuple(parse_number(f"a value in to: {kind}", item) for item in _items(f"to: {kind}", body))


def _items(argument: str, body: str) -> list[str]:
    items = [item.strip() for item in body.split(",")]
    if not all(items):
        raise ValueError(f"{argument} has an empty item in {body!r}")
    return items


WHEN: dict[str, tuple[str, Callable[[str], When]]] = {
    "every": ("every:2e6", _every),
    "poisson": ("poisson:5e4", _poisson),
    "at": ("at:1000,5000", _at),
}
WHAT: dict[str, tuple[str, Callable[[str], What]]] = {
    "loguniform": ("loguniform:0.02,2.0", _loguniform),
    "uniform": ("uniform:0.5,1.5", lambda body: Uniform(*_range("uniform", body))),
    "cycle": ("cycle:1,0.5,2", lambda body: Listed(_values("cycle", body), repeat=True)),
    "list": ("list:1,0.5,2", lambda body: Listed(_values("list", body))),
}
_TABLE = "table:path.csv"


def _split(argument: str, text: object, examples: Mapping[str, str]) -> tuple[str, str]:
    """Split `kind:body` and check both halves are there."""
    kind, _, body = text.partition(":") if isinstance(text, str) else (text, "", "")
    kind = choose(f"'{argument}'", kind.strip() if isinstance(kind, str) else kind, examples)
    if not body.strip():
        raise ValueError(
            f'{argument}: {kind} needs its numbers after a colon, such as "{examples[kind]}", got {text!r}'
        )
    return kind, body.strip()


def parse_schedule(spec: str | Mapping[str, Any], *, seed: int = 0, name: str = "") -> Schedule:
    """Read a schedule from its short form or from a dict; both are JSON.

    Args:
        spec: `when|to` or `when|to|first`, such as `every:2e6|loguniform:0.02,2.0|draw`, or `table:path.csv`; or a
            dict with the keys `when`, `to`, `first` (`nominal`, the default, or `draw`).
            when: `every:period`, `poisson:mean`, `at:times`, `table:path.csv`, in environment steps of all
            sub-environments together. to: `loguniform:low,high`, `uniform:low,high`, `cycle:values` (over and over),
            `list:values` (once, then the last for good).
            A table whose first row is step 0 says the first regime too; otherwise the first regime is nominal.
        seed: the schedule seed, an integer >= 0.
        name: the target's name.

    Raises:
        ValueError: naming the argument, what is allowed, what came, and the nearest right name.
    """
    if isinstance(spec, str):
        parts = [part.strip() for part in spec.split("|")]
        if len(parts) > 3:
            raise ValueError(f"a schedule is when|to or when|to|first, got {spec!r}")
        fields: Mapping[str, Any] = dict(zip(("when", "to", "first"), parts, strict=False))
    elif isinstance(spec, Mapping):
        fields = spec
        for key in fields:
            choose("key in a schedule", key, ("when", "to", "first"))
    else:
        raise ValueError(f'a schedule is text such as "every:5e4|uniform:0.5,1.5" or a dict, got {spec!r}')
    when_text, to_text, first = (fields.get(key) for key in ("when", "to", "first"))
    if when_text is None:
        raise ValueError(f'a schedule needs "when" ({", ".join([*WHEN, "table"])}), got {spec!r}')
    kind, body = _split("when", when_text, {**{k: example for k, (example, _) in WHEN.items()}, "table": _TABLE})
    if kind == "table":
        if to_text is not None or first is not None:
            raise ValueError(f'when: table brings its own values: leave out "to" and "first", got {spec!r}')
        steps, values = read_table(body)
        draw = steps[0] == 0
        return Schedule(At(steps[draw:]), Listed(values), "draw" if draw else "nominal", seed, name, table=body)
    if to_text is None:
        raise ValueError(f'a schedule needs "to" ({", ".join(WHAT)}), got {spec!r}')
    when = WHEN[kind][1](body)
    kind, body = _split("to", to_text, {k: example for k, (example, _) in WHAT.items()})
    return Schedule(when, WHAT[kind][1](body), "nominal" if first is None else first, seed, name)


@dataclass(frozen=True)
class Change:
    """One thing that changes: what, on which schedule, and where in an episode it takes effect.

    Args:
        target: a target's name, or an object or class with `validate(env)`, `apply(value)` and `restore()`.
        schedule: when and to what; its seed and name are set from the wrapper's `schedule_seed` and the target's name.
        boundary: `episode`, `step` or `truncate`; None: the wrapper's.
    """

    target: Any
    schedule: Schedule
    boundary: str | None = None

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
        changes: each a dict with the keys `target`, `when`, `to`, `first`, `boundary`, such as
            `{"target": "gravity", "when": "every:5e4", "to": "uniform:0.5,1.5"}`; the short form
            `gravity=every:5e4|uniform:0.5,1.5`; or a `Change`.
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
        parts = [part.strip() for part in rest.split("|")]
        if len(parts) > 3:
            raise ValueError(f"a change is target=when|to or target=when|to|first, got {item!r}")
        item = {"target": name.strip(), **dict(zip(("when", "to", "first"), parts, strict=False))}
    if not isinstance(item, Mapping):
        raise ValueError(f"a change is a dict or text, got {item!r}")
    for key in item:
        choose("key in a change", key, ("target", "when", "to", "first", "boundary"))
    target = item.get("target")
    boundary = item.get("boundary")
    if target is None or target == "":
        raise ValueError(f'a change needs "target", the name of what changes, got {dict(item)!r}')
    if boundary is not None:
        choose("'boundary'", boundary, BOUNDARIES)
    schedule = parse_schedule({key: item[key] for key in ("when", "to", "first") if key in item})
    change = Change(target, schedule, boundary)
    return replace(change, schedule=replace(schedule, seed=seed, name=change.name))
