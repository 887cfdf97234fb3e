"""Numbers as people read them."""

from __future__ import annotations

import math

from experiments.analysis import Measure

POINTS = " points"  # of percent


def number(value: float, measure: Measure | None = None, sign: bool = False) -> str:
    """Three digits or whole numbers, a true minus; shares in percent, and their differences in points of percent.

    sign: of a difference, which is written with its sign.
    """
    if not math.isfinite(value):
        return "–"
    plus = "+" if sign else ""
    if measure is not None and measure.percent:
        text = f"{100 * value:{plus}.{0 if abs(value) >= 0.9995 else 1}f}{POINTS if sign else ' %'}"
    elif abs(value) >= 100:
        text = f"{value:{plus},.0f}"
    elif value == 0 or abs(value) >= 0.01:
        text = f"{value:{plus}.{2 if abs(value) < 10 else 1}f}"
    else:
        text = f"{value:{plus}.1e}"
    return text.replace("-", "−")


def interval(low: float, high: float, measure: Measure | None = None, sign: bool = False) -> str:
    """[low, high], or nothing where there is no interval."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return f"[{number(low, measure, sign)}, {number(high, measure, sign)}]".replace(" %,", ",").replace(
        f"{POINTS},", ","
    )


def duration(seconds: float) -> str:
    """Hours, or minutes below two hours."""
    if seconds >= 7200:
        return f"{seconds / 3600:,.1f} hours"
    return f"{seconds / 60:,.0f} minutes" if seconds >= 90 else f"{seconds:,.0f} seconds"


def count(things: int, name: str) -> str:
    """1 run, 2 runs."""
    return f"{things:,} {name}{'' if things == 1 else 's'}"


def listed(words: list[str]) -> str:
    """a, b and c."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
