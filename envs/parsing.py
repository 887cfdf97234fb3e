"""Reading numbers and names from configurations, with errors that teach."""

from __future__ import annotations

import contextlib
import difflib
import math
from collections.abc import Iterable
from numbers import Real


def choose(argument: str, got: object, allowed: Iterable[str]) -> str:
    """Return `got` if it is one of `allowed`.

    Raises:
        ValueError: naming the argument, what is allowed, what came and the nearest allowed name.
    """
    names = list(allowed)
    if isinstance(got, str) and got in names:
        return got
    near = difflib.get_close_matches(str(got), names, n=1)
    hint = f'; did you mean "{near[0]}"?' if near else ""
    shown = f'"{got}"' if isinstance(got, str) else repr(got)
    raise ValueError(f"unknown {argument} {shown}: allowed are {', '.join(names)}{hint}")


def parse_number(argument: str, got: object) -> float:
    """Return `got` (a number, or its text such as `0.02`, `2e6`, `50_000`) as a finite float.

    Raises:
        ValueError: not a number, NaN or infinite.
    """
    value = math.nan
    if not isinstance(got, bool) and isinstance(got, str | Real):
        with contextlib.suppress(ValueError, OverflowError):
            value = float(got)
    if not math.isfinite(value):
        raise ValueError(f"{argument} must be a finite number, got {got!r}")
    return value


def parse_steps(argument: str, got: object, minimum: int = 1) -> int:
    """Return `got` (such as `20000`, `"50_000"`, `"5e4"`) as a whole number of environment steps.

    Raises:
        ValueError: not a whole number, NaN, infinite, or below `minimum`.
    """
    wanted = f"{argument} must be a whole number >= {minimum} (environment steps; 5e4 and 50_000 are fine)"
    if isinstance(got, int) and not isinstance(got, bool):
        steps = got
    else:
        try:
            value = parse_number(argument, got)
        except ValueError:
            raise ValueError(f"{wanted}, got {got!r}") from None
        if not value.is_integer():
            raise ValueError(f"{wanted}, got {got!r}")
        steps = int(value)
    if steps < minimum:
        raise ValueError(f"{wanted}, got {got!r}")
    return steps


def parse_flag(argument: str, got: object) -> bool:
    """Return `got` if it is True or False; text and numbers are not, since "no" and "a" would both count as true."""
    if not isinstance(got, bool):
        raise ValueError(f"{argument} must be True or False, got {got!r}")
    return got


def parse_count(argument: str, got: object, minimum: int = 0) -> int:
    """Return `got` if it is an integer of at least `minimum` (a seed, a stride, a clock reading).

    Unlike `parse_steps` this takes no text: these arguments come from code, or from a configuration already typed.
    NumPy integers are fine.

    Raises:
        ValueError: not an integer, or below `minimum`.
    """
    if isinstance(got, bool) or not hasattr(got, "__index__") or (count := got.__index__()) < minimum:
        raise ValueError(f"{argument} must be an integer >= {minimum}, got {got!r}")
    return int(count)
