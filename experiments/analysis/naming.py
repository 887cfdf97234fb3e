"""Which runs belong to one method, which worlds are the same, and what to call them: from what differs in settings."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from experiments import folder as files

Flat = dict[str, Any]
WORLD = ("id", "kwargs", "changes", "boundary")  # of the section env: what there is to learn, not how
NOT_A_METHOD = ("seed", "env.schedule_seed", "env.vectorization")
BARE = "none"


def flat(tree: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Each setting with its dotted name; 2e6 and 2000000 are the same."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", int(value) if isinstance(value, float) and value.is_integer() else value


def settings(config: Mapping[str, Any]) -> Flat:
    """All that decides what is learned, but for the seed: what makes a method."""
    learned = {key: value for key, value in config.items() if key not in (*files.NOT_LEARNED, "total_steps")}
    found = {key: value for key, value in flat(learned) if key not in NOT_A_METHOD}
    found.pop("plasticity", None)  # of a run without methods
    return {**found, "methods": list(config["plasticity"])}  # the order in which they act


def world(config: Mapping[str, Any]) -> Flat:
    """The settings that make the environment, but for its seed."""
    return dict(flat({key: config["env"][key] for key in WORLD if key in config["env"]}))


def key(found: Flat) -> str:
    """Equal for equal settings."""
    return json.dumps(found, sort_keys=True, default=str)


def differing(all_settings: Sequence[Flat]) -> list[str]:
    """The names of the settings that are not the same everywhere, `methods` first."""
    names = dict.fromkeys(name for one in all_settings for name in one)
    found = [name for name in names if len({_text(one.get(name, _ABSENT)) for one in all_settings}) > 1]
    return sorted(found, key=lambda name: (name != "methods", list(names).index(name)))


def method_names(all_settings: Sequence[Flat]) -> list[str]:
    """A short name for each: the plasticity methods, and of further differences what it takes to tell them apart."""
    bases = ["+".join(one["methods"]) or BARE for one in all_settings]
    return _told_apart(bases, all_settings)


def world_names(worlds: Sequence[Flat]) -> list[str]:
    """The environment's id, and of further differences what it takes to tell them apart."""
    return _told_apart([str(one["id"]) for one in worlds], worlds)


def show(value: Any) -> str:
    """A setting as it would be typed, about."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and abs(value) >= 10_000:
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(show, value)) + "]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name}: {show(one)}" for name, one in value.items()) + "}"
    return str(value)


_ABSENT = object()


def _told_apart(bases: Sequence[str], all_settings: Sequence[Flat]) -> list[str]:
    names = list(bases)
    for base in dict.fromkeys(bases):
        same = [place for place, name in enumerate(bases) if name == base]
        if len(same) > 1:
            chosen = [all_settings[place] for place in same]
            keys = [name for name in differing(chosen) if name != "methods"]
            for place in same:
                parts = [f"{_short(name, keys)}={show(all_settings[place].get(name))}" for name in keys]
                names[place] = f"{base}, {', '.join(parts)}" if parts else base
    return list(_unique(names))


def _short(name: str, names: Sequence[str]) -> str:
    last = name.rpartition(".")[2]
    return last if sum(other.rpartition(".")[2] == last for other in names) == 1 else name


def _unique(names: Iterable[str]) -> Iterator[str]:
    seen: dict[str, int] = {}
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        yield name if seen[name] == 1 else f"{name} ({seen[name]})"


def _text(value: Any) -> str:
    return "" if value is _ABSENT else json.dumps(value, sort_keys=True, default=str)
