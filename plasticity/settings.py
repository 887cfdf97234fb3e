"""Settings that check themselves: frozen dataclasses whose fields say which values they allow.

@dataclass(frozen=True)
class Config:
    replacement_rate: float = setting(1e-4, within="[0, 1]")

    def __post_init__(self) -> None:
        check(self)
"""

from __future__ import annotations

import difflib
import math
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, field, fields
from typing import Any, TypeVar

Config = TypeVar("Config")


class SettingsError(ValueError):
    """One or more settings that cannot be used; `errors` holds one sentence for each."""

    def __init__(self, errors: Iterable[str]):
        self.errors = tuple(errors)
        super().__init__("\n".join(self.errors))


def setting(default: Any = MISSING, *, within: str | None = None, choices: Iterable[str] | None = None) -> Any:
    """A dataclass field with the values it allows.

    `within` is an interval such as `"[0, 1)"` or `"[1, inf)"`; `choices` are the allowed names.
    """
    return field(default=default, metadata={"within": within, "choices": tuple(choices) if choices else None})


def check(config: Any) -> None:
    """Raise a `SettingsError` naming every field of `config` whose value its type, interval or choices refuse."""
    hints = typing.get_type_hints(type(config))
    errors: list[str] = []
    for item in fields(config):
        try:
            value = convert(getattr(config, item.name), hints[item.name], item.name)
            _check_value(value, item.name, item.metadata.get("within"), item.metadata.get("choices"))
        except SettingsError as error:
            errors += error.errors
        else:
            object.__setattr__(config, item.name, value)
    if errors:
        raise SettingsError(errors)


def from_mapping(cls: type[Config], settings: Mapping[str, Any], where: str = "") -> Config:
    """`cls(**settings)`; every error is found at once and carries the path `where`, unknown names the nearest one."""
    known = [item.name for item in fields(cls)]  # type: ignore[arg-type]
    errors = [unknown("setting", key, known) for key in settings if key not in known]
    config = None
    try:
        config = cls(**{key: value for key, value in settings.items() if key in known})
    except SettingsError as error:
        errors += error.errors
    if errors or config is None:
        raise SettingsError(_placed(error, where) for error in errors)
    return config


def _placed(error: str, where: str) -> str:
    if not where:
        return error
    return f"{where}: {error}" if error.startswith("unknown ") else f"{where}.{error}"


def unknown(kind: str, name: object, known: Iterable[str]) -> str:
    """The sentence for an unknown name: what came, what is allowed, and the nearest of it."""
    allowed = list(known)
    near = difflib.get_close_matches(str(name), allowed, n=1, cutoff=0.5)
    hint = f'; did you mean "{near[0]}"?' if near else ""
    return f'unknown {kind} "{name}": allowed are {", ".join(allowed) or "none"}{hint}'


def convert(value: Any, hint: Any, name: str) -> Any:
    """`value` as the type `hint`; text such as "1e-4", "2e4" and "20_000" counts as the number it spells.

    Raises `SettingsError` on anything else, NaN and infinity among it.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        options = [a for a in arguments if a is not type(None)]
        for option in options[:-1]:
            try:
                return convert(value, option, name)
            except SettingsError:
                continue
        try:
            return convert(value, options[-1], name)
        except SettingsError:
            words = [word for option in options for word in typing.get_args(option) if isinstance(word, str)]
            if not words:
                raise
            others = " or ".join(f'"{word}"' for word in words)
            raise SettingsError([f"{name} must be a number or {others}, got {value!r}"]) from None
    if origin is typing.Literal:
        if value not in arguments:
            raise SettingsError([unknown(name, value, arguments)])
        return value
    if origin is tuple:
        return _convert_tuple(value, arguments, name)
    if hint is bool or hint is str:
        if not isinstance(value, hint):
            raise SettingsError([f"{name} must be {'true or false' if hint is bool else 'text'}, got {value!r}"])
        return value
    if hint is int or hint is float:
        return _number(value, hint, name)
    return value


def _convert_tuple(value: Any, arguments: tuple[Any, ...], name: str) -> tuple[Any, ...]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise SettingsError([f"{name} must be a list, got {value!r}"])
    items = list(value)
    if arguments[-1] is Ellipsis:
        arguments = (arguments[0],) * len(items)
    if len(items) != len(arguments):
        raise SettingsError([f"{name} must have {len(arguments)} entries, got {value!r}"])
    return tuple(convert(v, a, f"{name}[{i}]") for i, (v, a) in enumerate(zip(items, arguments, strict=True)))


def _number(value: Any, kind: type, name: str) -> int | float:
    wanted = "a whole number" if kind is int else "a number"
    try:
        if isinstance(value, bool):
            raise ValueError
        number = value if isinstance(value, int) else float(value)
    except (TypeError, ValueError):
        raise SettingsError([f"{name} must be {wanted}, got {value!r}"]) from None
    if not math.isfinite(number):
        raise SettingsError([f"{name} must be finite, got {value}"])
    if kind is float:
        return float(number)
    if number != int(number):
        raise SettingsError([f"{name} must be {wanted}, got {value!r}"])
    return int(number)


def _check_value(value: Any, name: str, within: str | None, choices: tuple[str, ...] | None) -> None:
    if value is None:
        return
    if choices is not None and value not in choices:
        raise SettingsError([unknown(name, value, choices)])
    if within is not None:
        for number in value if isinstance(value, tuple) else (value,):
            if not isinstance(number, str) and not _inside(number, within):
                raise SettingsError([f"{name} must be in {within}, got {value}"])


def _inside(number: float, interval: str) -> bool:
    low, high = (float(end) for end in interval[1:-1].split(","))
    above = number >= low if interval[0] == "[" else number > low
    below = number <= high if interval[-1] == "]" else number < high
    return above and below
