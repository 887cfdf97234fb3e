"""How schedules and drifts are written: short strings and dicts, both JSON, read with errors that teach.

A new kind is one class in when.py, values.py or drift.py, and one entry in `WHEN`, `WHAT` or `DRIFT` here.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from envs.drift import Drift, Linear, OrnsteinUhlenbeck, Path, RandomWalk, Sine
from envs.parsing import choose, parse_number, parse_steps
from envs.schedule import Schedule
from envs.table import read_table
from envs.values import GaussianVector, Listed, LogUniform, Mask, Permutation, Sign, Uniform, What
from envs.when import At, Every, Poisson, When

Timeline: TypeAlias = Schedule | Drift

KEYS = ("when", "to", "first", "drift", "resolution")


def _every(body: str) -> When:
    return Every(parse_steps("the period in when: every", body))


def _poisson(body: str) -> When:
    mean = parse_number("the mean in when: poisson", body)
    if mean < 1:
        raise ValueError(f"the mean in when: poisson must be >= 1 environment step, got {body!r}")
    return Poisson(mean)


def _at(body: str) -> When:
    times = tuple(parse_steps("a time in when: at", item) for item in _items("when: at", body))
    for before, time in itertools.pairwise(times):
        if time <= before:
            raise ValueError(f"the times in when: at must increase, and {time} follows {before}, got {body!r}")
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


def _gaussian_vector(body: str) -> What:
    deviation = parse_number("the standard deviation in to: gaussian_vector", body)
    if deviation <= 0:
        raise ValueError(f"the standard deviation in to: gaussian_vector must be > 0, got {body!r}")
    return GaussianVector(deviation)


def _values(kind: str, body: str) -> tuple[float, ...]:
    return tuple(parse_number(f"a value in to: {kind}", item) for item in _items(f"to: {kind}", body))


def _path(kind: str, body: str, *names: str) -> tuple[int, list[float]]:
    """Read `steps` and the numbers called `names`."""
    items = _items(f"drift: {kind}", body)
    if len(items) != 1 + len(names):
        raise ValueError(f"drift: {kind} takes steps,{','.join(names)}, got {body!r}")
    numbers = [parse_number(f"{name} in drift: {kind}", item) for name, item in zip(names, items[1:], strict=True)]
    return parse_steps(f"steps in drift: {kind}", items[0]), numbers


def _linear(body: str) -> Path:
    steps, (start, stop) = _path("linear", body, "start", "stop")
    return Linear(steps, start, stop)


def _sine(body: str) -> Path:
    steps, (low, high) = _path("sine", body, "low", "high")
    if low > high:
        raise ValueError(f"drift: sine needs low <= high, got {body!r}")
    return Sine(steps, low, high)


def _random_walk(body: str) -> Path:
    return RandomWalk(*_wandering("random_walk", body, "start"))


def _ou(body: str) -> Path:
    return OrnsteinUhlenbeck(*_wandering("ou", body, "mean"))


def _wandering(kind: str, body: str, centre: str) -> tuple[int, float, float, float, float]:
    steps, (middle, deviation, low, high) = _path(kind, body, centre, "deviation", "low", "high")
    if deviation <= 0:
        raise ValueError(f"deviation in drift: {kind} must be > 0, got {body!r}")
    if not low <= middle <= high or low == high:
        raise ValueError(f"drift: {kind} needs low < high and {centre} in [low, high], got {body!r}")
    return steps, middle, deviation, low, high


def _items(argument: str, body: str) -> list[str]:
    items = [item.strip() for item in body.split(",")]
    if not all(items):
        raise ValueError(f"{argument} has an empty item in {body!r}")
    return items


# kind: (example, reader of what follows the colon); an example without a colon: nothing may follow.
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
    "permutation": ("permutation", lambda body: Permutation()),
    "gaussian_vector": ("gaussian_vector:2.0", _gaussian_vector),
    "sign": ("sign", lambda body: Sign()),
    "mask": ("mask:1", lambda body: Mask(parse_steps("the number in to: mask", body))),
}
DRIFT: dict[str, tuple[str, Callable[[str], Path]]] = {
    "linear": ("linear:1e6,1.0,0.2", _linear),
    "sine": ("sine:1e6,0.5,1.5", _sine),
    "random_walk": ("random_walk:1e6,1.0,0.5,0.2,2.0", _random_walk),
    "ou": ("ou:1e5,1.0,0.2,0.5,1.5", _ou),
}
_TABLE = {"table": "table:path.csv"}


def _examples(kinds: Mapping[str, tuple[str, Any]]) -> dict[str, str]:
    return {kind: example for kind, (example, _) in kinds.items()}


def _split(argument: str, text: object, examples: Mapping[str, str]) -> tuple[str, str]:
    """Split `kind:body` and check both halves are there."""
    kind, _, body = text.partition(":") if isinstance(text, str) else (text, "", "")
    kind = choose(f"'{argument}'", kind.strip() if isinstance(kind, str) else kind, examples)
    example, body = examples[kind], body.strip()
    if ":" in example and not body:
        raise ValueError(f'{argument}: {kind} needs its numbers after a colon, such as "{example}", got {text!r}')
    if ":" not in example and body:
        raise ValueError(f"{argument}: {kind} takes no numbers, got {text!r}")
    return kind, body


def _resolution(text: str) -> str:
    name, colon, steps = text.partition(":")
    if name.strip() != "resolution" or not colon:
        raise ValueError(f"after a drift comes |resolution:steps, such as |resolution:1000, or nothing, got {text!r}")
    return steps.strip()


def split_short(text: str, shape: str) -> dict[str, str]:
    """Split the short form of a schedule into the fields of its dict form.

    Args:
        text: `when|to`, `when|to|first`, `drift` or `drift|resolution:steps`.
        shape: how the error says it should look.
    """
    parts = [part.strip() for part in text.split("|")]
    kind = parts[0].partition(":")[0].strip()
    if kind in DRIFT:
        if len(parts) > 2:
            raise ValueError(f"a drift is {kind}:numbers or {kind}:numbers|resolution:steps, got {text!r}")
        return {"drift": parts[0]} if len(parts) == 1 else {"drift": parts[0], "resolution": _resolution(parts[1])}
    if len(parts) > 3:
        raise ValueError(f"{shape}, got {text!r}")
    choose("'when'", kind, [*WHEN, *_TABLE, *DRIFT])
    return dict(zip(("when", "to", "first"), parts, strict=False))


def parse_schedule(spec: str | Mapping[str, Any], *, seed: int = 0, name: str = "") -> Timeline:
    """Read a schedule, or a drift, from its short form or from a dict; both are JSON.

    Args:
        spec: `when|to` or `when|to|first`, such as `every:2e6|loguniform:0.02,2.0|draw`, or `table:path.csv`; or a
            dict with the keys `when`, `to`, `first` (`nominal`, the default, or `draw`).
            when: `every:period`, `poisson:mean`, `at:times`, `table:path.csv`, in environment steps of all
            sub-environments together. to: one number, `loguniform:low,high`, `uniform:low,high`, `cycle:values` (over
            and over), `list:values` (once, then the last for good), `sign` (-1 or 1); or a vector of the target's size,
            `permutation`, `gaussian_vector:deviation`, `mask:count` (ones with `count` zeros), `sign`.
            A table whose first row is step 0 says the first regime too; otherwise the first regime is nominal.
            What changes all the time is a drift: `linear:steps,start,stop`, `sine:steps,low,high`,
            `random_walk:steps,start,deviation,low,high`, `ou:steps,mean,deviation,low,high`, by itself or followed by
            `|resolution:steps`, how often it is renewed (usually a thousandth of its time scale); or a dict with the
            keys `drift` and `resolution`. See drift.py.
        seed: the schedule seed, an integer >= 0.
        name: the target's name.

    Raises:
        ValueError: naming the argument, what is allowed, what came, and the nearest right name.
    """
    if isinstance(spec, str):
        fields: Mapping[str, Any] = split_short(spec, "a schedule is when|to or when|to|first")
    elif isinstance(spec, Mapping):
        fields = spec
        for key in fields:
            choose("key in a schedule", key, KEYS)
    else:
        raise ValueError(f'a schedule is text such as "every:5e4|uniform:0.5,1.5" or a dict, got {spec!r}')
    if "drift" in fields:
        return _drift(fields, seed, name)
    if "resolution" in fields:
        raise ValueError(f'"resolution" belongs to a drift ({", ".join(DRIFT)}), got {spec!r}')
    when_text, to_text, first = (fields.get(key) for key in ("when", "to", "first"))
    if when_text is None:
        raise ValueError(f'a schedule needs "when" ({", ".join([*WHEN, *_TABLE])}) or "drift", got {spec!r}')
    if isinstance(when_text, str) and (kind := when_text.partition(":")[0].strip()) in DRIFT:
        raise ValueError(f'{kind} is a drift: give it as "drift" and not as "when", got {spec!r}')
    kind, body = _split("when", when_text, _examples(WHEN) | _TABLE)
    if kind in _TABLE:
        if to_text is not None or first is not None:
            raise ValueError(f'when: table brings its own values: leave out "to" and "first", got {spec!r}')
        steps, values = read_table(body)
        draw = steps[0] == 0
        return Schedule(At(steps[draw:]), Listed(values), "draw" if draw else "nominal", seed, name, table=body)
    if to_text is None:
        raise ValueError(f'a schedule needs "to" ({", ".join(WHAT)}), got {spec!r}')
    when = WHEN[kind][1](body)
    kind, body = _split("to", to_text, _examples(WHAT))
    return Schedule(when, WHAT[kind][1](body), "nominal" if first is None else first, seed, name)


def _drift(fields: Mapping[str, Any], seed: int, name: str) -> Drift:
    for key in ("when", "to", "first"):
        if key in fields:
            raise ValueError(f'a drift brings its own times and values: leave out "{key}", got {dict(fields)!r}')
    kind, body = _split("drift", fields["drift"], _examples(DRIFT))
    path = DRIFT[kind][1](body)
    resolution = fields.get("resolution", max(1, path.steps // 1000))
    return Drift(path, parse_steps("resolution", resolution), seed, name)
