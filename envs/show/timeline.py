"""The schedules of one environment as a picture or a table needs them: change points and values within a horizon."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from envs.drift import Drift
from envs.grammar import Timeline
from envs.live import Live
from envs.schedule import Schedule
from envs.values import LogUniform, Value

CHANGES = 10  # that the default horizon holds
MOST_CHANGES = 5000  # that are drawn
SAMPLES = 800  # of a drift, across the picture
ENTRIES = 8  # of a vector, that are printed
WIDE = 20.0  # values whose largest is this many times the smallest are drawn on a logarithmic scale

BOUNDARY = {
    "episode": "each copy takes a change that is due at its own next reset (the published rule)",
    "step": "a change takes effect before the next step, in the middle of an episode, in all copies at once",
    "truncate": "a change that is due ends the running episode as truncated; the new regime begins with the reset",
}


@dataclass(frozen=True)
class Track:
    """One target over time.

    times, values: where its value changes and what infos then read of it, beginning with t = 0; of a drift, samples.
    nominal: what infos read of the environment as it came.
    entries: how many numbers the value has; None: it is one, and not read from a vector.
    zeros: of a mask, where its zeros are at each of the times; None: it is no mask.
    """

    name: str
    schedule: str
    boundary: str
    drifts: bool
    nominal: float
    entries: int | None
    times: tuple[int, ...]
    values: tuple[float, ...]
    logarithmic: bool
    zeros: tuple[tuple[int, ...], ...] | None = None


def default_horizon(lives: Sequence[Live]) -> int:
    """Return a time by which the quickest target has changed ten times or so, and every one twice."""
    ten, two = ([_time_of(live.schedule, count) for live in lives] for count in (CHANGES, 2))
    return max(min(ten), *two)


def _time_of(schedule: Timeline, count: int) -> int:
    """Return when `count` changes have been made, or a little more than all it has; of a drift, ten time scales."""
    if isinstance(schedule, Drift):
        steps = schedule.path.steps
        return count * steps if schedule.path.end == math.inf else math.ceil(1.25 * steps)
    last = 0
    for regime in range(1, count + 1):
        start = schedule.start(regime)
        if start is None:
            return math.ceil(1.25 * last) or 1000
        last = start
    return last


def shown_horizon(lives: Sequence[Live], steps: int) -> int:
    """Return `steps`, or less where they hold more changes than can be drawn."""
    ends = [live.schedule.start(MOST_CHANGES) for live in lives if isinstance(live.schedule, Schedule)]
    return min([steps, *(end for end in ends if end is not None)])


def make_track(live: Live, horizon: int) -> Track:
    """Return one target's values in [0, horizon)."""
    schedule, drifts = live.schedule, isinstance(live.schedule, Drift)
    if drifts:
        times = sorted({int(t) for t in np.linspace(0, max(horizon - 1, 0), SAMPLES)})
    else:
        times = [0]
        while (start := schedule.start(len(times))) is not None and start < horizon:
            times.append(start)
    values, nominal = [live.due(t) for t in times], live.reading(None)
    low, high = min(*values, nominal), max(*values, nominal)
    wide = low > 0 and (high > WIDE * low or (isinstance(schedule, Schedule) and isinstance(schedule.to, LogUniform)))
    boundary = BOUNDARY[live.boundary]
    if isinstance(schedule, Drift):
        how = "at resets only" if live.boundary == "episode" else "in the middle of an episode too"
        boundary = f"moves every {schedule.resolution:,} steps, {how}; it has no change points"
    masks = [zeros_of(live, schedule.at(t)) for t in times]
    zeros = None if any(mask is None for mask in masks) else tuple(mask or () for mask in masks)
    return Track(
        live.name, str(schedule), boundary, drifts, nominal, live.size, tuple(times), tuple(values), wide, zeros
    )


def change_points(tracks: Sequence[Track]) -> list[int]:
    """Return all times at which a regime begins, 0 included, in order."""
    return sorted({0, *(t for track in tracks if not track.drifts for t in track.times)})


def regime_at(tracks: Sequence[Track], t: int) -> int:
    """Return the regime as infos number it: the changes so far, summed over the targets."""
    return sum(bisect.bisect_right(track.times, t) - 1 for track in tracks if not track.drifts)


def moments(tracks: Sequence[Track], count: int) -> list[int]:
    """Return up to `count` times worth a visit: the first regimes; where a drift is lowest and highest."""
    drifts = [track for track in tracks if track.drifts]
    extremes = {track.times[pick(track.values)] for track in drifts for pick in (np.argmin, np.argmax)}
    points = change_points(tracks)
    return sorted({*points[: max(1, count - len(extremes))], *extremes})[:count]


def value_text(live: Live, value: Value | None) -> str:
    """Return a value for people: a number; of a vector what infos read, and its first entries or a mask's zeros."""
    if value is None:
        return f"{live.reading(None):.4g} (nominal)"
    if isinstance(value, float):
        return f"{value:.4g}"
    if (zeros := zeros_of(live, value)) is not None:
        numbers = ", ".join(map(str, zeros[:ENTRIES])) + (", ..." if len(zeros) > ENTRIES else "")
        return f"{live.reading(value):.3g}  [0 at {numbers}]" if zeros else f"{live.reading(value):.3g}"
    entries = " ".join(f"{entry:.3g}" for entry in value[:ENTRIES])
    return f"{live.reading(value):.3g}  [{entries}{' ...' if len(value) > ENTRIES else ''}]"


def zeros_of(live: Live, value: Value | None) -> tuple[int, ...] | None:
    """Return the places of a mask's zeros, from 0; None if the value is no mask, which has ones wherever it is nominal.

    A nominal value (None) is a mask of ones, where the target takes masks.
    """
    if live.size is None or not np.all(live.nominal == 1) or (live.low, live.high) != (0.0, 1.0):
        return None
    value = live.nominal if value is None else value
    return tuple(int(place) for place in np.flatnonzero(value == 0)) if np.isin(value, (0.0, 1.0)).all() else None


def sparkline(track: Track, horizon: int, width: int = 60) -> str:
    """Return the values over time as one line of blocks."""
    blocks = "▁▂▃▄▅▆▇█"
    times = np.linspace(0, horizon, width, endpoint=False)
    values = np.array(track.values)[np.searchsorted(track.times, times, side="right") - 1]
    values = np.log(values) if track.logarithmic else values
    spread = float(np.ptp(values))
    heights = (values - values.min()) / spread if spread else np.zeros(width)
    return "".join(blocks[min(int(height * len(blocks)), len(blocks) - 1)] for height in heights)
