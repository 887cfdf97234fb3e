"""Sweeps kept as files, `configs/sweep/NAME.yaml`: the words of every run, and axes with a run for each combination."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from experiments.compose import CONFIGS, value_of, values_of
from experiments.errors import BadInput
from experiments.folder import quoted
from experiments.refuse import faults_in_key, faults_in_text
from plasticity.settings import unknown

FOLDER = "sweep"
KEYS = ("words", "axes")


@dataclass(frozen=True)
class Named:
    """A sweep from a file. words: of every run; axes: key -> the values, as one would type them after `key=`."""

    name: str
    words: tuple[str, ...]
    axes: Mapping[str, str]


def available(directories: Sequence[Path] = ()) -> dict[str, str]:
    """name -> the first comment of its file. directories: the user's own, beside `configs/`."""
    found = {}
    for path in _paths(directories):
        lines = path.read_text("utf-8").splitlines()
        found[path.stem] = next((line[1:].strip() for line in lines if line[:1] == "#"), "")
    return found


def read(name: str, directories: Sequence[Path] = ()) -> Named:
    """The sweep of that name, or in that file where it ends in .yaml; raises `BadInput` with all that is wrong."""
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
        if not path.is_file():
            raise BadInput(f"sweep={name}: there is no such file")
    else:
        paths = {path.stem: path for path in _paths(directories)}
        if name not in paths:
            raise BadInput(f"{unknown('sweep', name, paths)}; a file of your own is sweep=PATH.yaml")
        path = paths[name]
    try:
        tree = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadInput(f"{path} cannot be read as YAML: {' '.join(str(error).split())}") from None
    if faults := list(_faults(tree)):
        raise BadInput(f"{path}: {fault}" for fault in faults)
    axes = {key: _axis(value) for key, value in (tree.get("axes") or {}).items()}
    return Named(path.stem, tuple(tree.get("words") or ()), axes)


def _paths(directories: Sequence[Path]) -> Iterator[Path]:
    for directory in (CONFIGS, *directories):
        yield from sorted((directory / FOLDER).glob("*.yaml"))


def _faults(tree: Any) -> Iterator[str]:
    """What is wrong with a file, as sentences without its name."""
    if not isinstance(tree, Mapping):
        yield "must have words (a list) and axes (key: values), such as axes: {plasticity: [none, cbp], seed: range(5)}"
        return
    yield from (unknown("key", key, KEYS) for key in tree if key not in KEYS)
    words, axes = tree.get("words") or [], tree.get("axes") or {}
    if not isinstance(words, list):
        yield f"words must be a list of words as one types them, such as [agent=sac, total_steps=4e4], got {words!r}"
        words = []
    if not isinstance(axes, Mapping):
        yield f"axes must be a mapping of keys to values, such as plasticity: [none, cbp], got {axes!r}"
        axes = {}
    for word in words:
        if not isinstance(word, str) or "=" not in word:
            yield f"words: {word!r} must be text such as agent=sac"
        else:
            yield from (f"words: {word}: {fault}" for fault in _judged(word))
    for key, value in axes.items():
        if not isinstance(key, str):
            yield f"axes: {key!r} must be the name of a setting or group"
        elif isinstance(value, Mapping) or value is None or value == []:
            yield f"axes: {key} must be values, such as [1, 2, 3] or range(3), got {value!r}"
        else:
            yield from (f"axes: {key}: {fault}" for fault in _judged(f"{key}={_axis(value)}"))
    yield from (f"{key} is both in words and in axes" for key in sorted({key_of(str(w)) for w in words} & set(axes)))


def _judged(word: str) -> Iterator[str]:
    """What a word may not do in a file, though it may be typed: see experiments/refuse.py."""
    key, _, text = word.partition("=")
    yield from faults_in_key(key)
    yield from faults_in_text(text)
    with suppress(BadInput):  # which `plan` will raise
        texts = values_of(word, {}) or [text]
        parsed = [value_of(f"{key}={one}") or one for one in texts]
        named = _ids(key_of(word).rpartition(".")[2], parsed)
        yield from (f'names the environment "{name}", which imports a module: type it instead' for name in named)


def _ids(key: str, value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _ids(str(name), item)
    elif isinstance(value, list):
        for item in value:
            yield from _ids(key, item)
    elif key in ("id", "ids") and ":" in str(value):
        yield str(value)


def key_of(word: str) -> str:
    """The setting or group that a word is about."""
    return word.partition("=")[0].lstrip("+~")


def _axis(value: Any) -> str:
    """The values of an axis as one would type them; text is taken as it is, so that range(5) works."""
    if not isinstance(value, list):
        return value if isinstance(value, str) else written(value)
    texts = [written(item) for item in value]
    return f"choice({','.join(texts)})"


def written(value: Any) -> str:
    """A plain value in the grammar of words."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{','.join(map(written, value))}]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{written(item)}" for key, item in value.items()) + "}"
    text = str(value)
    if re.fullmatch(r"\[[\w,. ]*\]", text):  # a list of names that was written as text
        return text
    return quoted(text)
