"""What `python -m envs.show` prints: the schedule as a table, and what the changes do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from envs.live import Live
from envs.nonstationary import NonStationary
from envs.show.effects import LEADS, LONG, contact_friction, one_step_effect
from envs.show.timeline import Track, change_points, moments, regime_at, sparkline, value_text

ROWS = 12  # of the table of change points
DRIFT_ROWS = 9  # times of a drift that are printed
PAIRS = 12  # of geoms
REGIMES = 3  # that effects are measured in ...
MOST_LOOKED_AT = 20  # ... of the first so many, since some are nominal


def schedule(
    console: Console, lives: Sequence[Live], tracks: Sequence[Track], horizon: int, title: str, says: str
) -> None:
    """Print when the world changes and to what."""
    console.print(f"[bold]{escape(title)}[/]")
    if says:
        _say(console, f"What changes: {escape(says)}.")
    _say(console, f"t counts environment steps of all sub-environments together; shown are the first {horizon:,}.")
    for track in tracks:
        _say(console, f"\n[bold]{escape(track.name)}[/]  {escape(track.schedule)}  (nominal {track.nominal:.4g})")
        _say(console, f"  {sparkline(track, horizon)}  {min(track.values):.3g} to {max(track.values):.3g}")
        _say(console, f"  {track.boundary}")
        if track.entries is not None:
            drawn = "the one number that infos read of them" if track.zeros is None else "where they are 0"
            _say(console, f"  its value has {track.entries} entries, counted from 0; drawn is {drawn}")
    points = change_points(tracks)
    if all(track.drifts for track in tracks):
        points = [horizon * number // DRIFT_ROWS for number in range(DRIFT_ROWS)]
    table = _table("t", "regime", *(live.name for live in lives))
    for t in points[:ROWS]:
        table.add_row(
            f"{t:,}", str(regime_at(tracks, t)), *(escape(value_text(live, live.schedule.at(t))) for live in lives)
        )
    console.print()
    console.print(table)
    if len(points) > ROWS:
        console.print(f"... and {len(points) - ROWS:,} more changes")


def effects(console: Console, env: gym.Env[Any, Any], wrapper: NonStationary, tracks: Sequence[Track]) -> None:
    """Print what the changes do, measured."""
    lives = wrapper.lives
    _contacts(console, env, wrapper, moments(tracks, REGIMES))
    measured = [
        one_step_effect(env, wrapper, live, t)
        for live, track in zip(lives, tracks, strict=True)
        for t in _changed(live, track)
    ]
    table = _table("target", "t", "value", "|Δ next observation|", "|Δ reward|")
    for effect in measured:
        live = next(live for live in lives if live.name == effect.name)
        numbers = f"{effect.observation:.3g}", f"{effect.reward:.3g}"
        table.add_row(escape(effect.name), f"{effect.t:,}", f"{live.due(effect.t):.4g}", *numbers)
    _say(console, "\n[bold]One step[/] from the same state with the same action: changed against nominal")
    _say(console, f"(each target alone; the largest difference over {len(LEADS)} states that random actions reach)")
    console.print(table)
    for name in dict.fromkeys(effect.name for effect in measured):
        found = [effect for effect in measured if effect.name == name]
        if any(not effect.none for effect in found):
            continue
        if parts := [effect.parts for effect in found if effect.parts is not None]:
            _say(
                console,
                f"{escape(name)} shows later: two runs of the same random actions part after {min(parts)} steps",
            )
        else:
            _say(
                console,
                f"[yellow]{escape(name)} changed nothing, not in {LONG:,} steps of random actions either: it acts only "
                "in states that these do not reach, or not at all. Look closer before you train.[/]",
            )


def _say(console: Console, text: str) -> None:
    """Print a sentence; the terminal breaks the line, so that files and copies have it whole."""
    console.print(text, soft_wrap=True)


def _changed(live: Live, track: Track) -> list[int]:
    """Return the first times at which a target is not nominal; of a drift, where it is lowest and highest."""
    if track.drifts:
        return [t for t in moments([track], 3) if _differs(live, t)][-2:]
    first: dict[str, int] = {}
    for t in track.times[:MOST_LOOKED_AT]:
        if _differs(live, t):
            first.setdefault(value_text(live, live.schedule.at(t)), t)
    return list(first.values())[:REGIMES]


def _differs(live: Live, t: int) -> bool:
    value = live.schedule.at(t)
    return value is not None and not np.all(value == live.nominal)


def _contacts(console: Console, env: gym.Env[Any, Any], wrapper: NonStationary, times: Sequence[int]) -> None:
    """Print the friction of contacts, where something changes it or is meant to."""
    lives = wrapper.lives
    times = [t for t in times if any(_differs(live, t) for live in lives)]
    meant = any("friction" in live.name for live in lives)
    found = contact_friction(env, wrapper, [None, *times])
    moved = any(row[0] and used and used != row[0] for row in found.values() for used in row[1:])
    if not found or not (meant or moved):
        return
    table = _table("geoms that touch", "nominal", *(f"t = {t:,}" for t in times))
    for (one, other), row in list(found.items())[:PAIRS]:
        table.add_row(escape(f"{one} - {other}"), *(_range(used) for used in row))
    _say(console, "\n[bold]Friction of real contacts[/], read from the simulator while random actions are taken")
    console.print(table)
    if len(found) > PAIRS:
        console.print(f"... and {len(found) - PAIRS} more pairs")
    if not moved:
        _say(console, "[yellow]No contact's friction differs from its nominal one: the change is masked.[/]")


def _range(used: set[float]) -> str:
    if not used:
        return "-"
    low, high = f"{min(used):.4g}", f"{max(used):.4g}"
    return low if low == high else f"{low} to {high}"


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column(first, justify="left" if first != "t" else "right")
    for name in others:
        table.add_column(escape(name), justify="right")
    return table
