"""What is seen of a sweep: a table that lives on a terminal, a line now and then elsewhere, and a table at the end."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from experiments.announce import tell
from experiments.progress import clock
from experiments.summary import number
from experiments.sweep.status import (
    DONE,
    ELSEWHERE,
    FAILED,
    RUNNING,
    SAVED,
    STATES,
    STOPPED,
    TODO,
    Status,
)

MINUTE = 60.0  # seconds between two lines where there is no terminal
ROWS = 60  # cells in the table at the end; of more, those that are not done
STYLES = {RUNNING: "cyan", DONE: "green", FAILED: "red", STOPPED: "yellow"}
FIRST = (RUNNING, FAILED, ELSEWHERE, STOPPED, SAVED, TODO, DONE)  # what is shown where there is no room for all


class Watch:
    """Shows `statuses` while it is entered; `update` is called again and again. title: the first line."""

    def __init__(self, statuses: Sequence[Status], title: str, console: Console):
        self.statuses, self.title, self.console = statuses, title, console
        self.note = ""
        self._live: Live | None = None
        self._states: dict[int, tuple[str, int]] = {}
        self._told = time.monotonic()

    def __enter__(self) -> Watch:
        if self.console.is_terminal:
            self._live = Live(console=self.console, auto_refresh=False, transient=True)
            self._live.start()
        else:
            tell([self.title], self.console)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def update(self) -> None:
        """Show how it is now."""
        if self._live is not None:
            self._live.update(self._picture(), refresh=True)
            return
        for index, status in enumerate(self.statuses):
            state = (status.state, len(status.begun))
            if self._states.setdefault(index, state) != state:
                tell([f"{time.strftime('%H:%M:%S')}  {_said(status)}"], self.console)
            self._states[index] = state
        if time.monotonic() - self._told >= MINUTE:
            self._told = time.monotonic()
            tell([f"{time.strftime('%H:%M:%S')}  {counts(self.statuses)}"], self.console)

    def say(self, note: str) -> None:
        """Show a sentence below the table, or as a line."""
        self.note = note
        if self._live is None:
            tell([note], self.console)
        self.update()

    def _picture(self) -> Group:
        room = max(3, self.console.height - 7)
        shown = _most_worth_seeing(self.statuses, room)
        parts: list[RenderableType] = [Text(self.title), table(shown), Text(counts(self.statuses))]
        if len(shown) < len(self.statuses):
            parts.insert(2, Text(f"... and {len(self.statuses) - len(shown):,} more"))
        return Group(*parts, *([Text(self.note, style="yellow")] if self.note else []))


def table(statuses: Sequence[Status]) -> Table:
    """A row a cell."""
    axes = list(dict.fromkeys(axis for status in statuses for axis in status.cell.values))
    shown = Table()
    for name in headings(axes).values():
        shown.add_column(name)
    shown.add_column("state")
    for name in ("steps", "", "steps/s", "return", "left"):
        shown.add_column(name, justify="right")
    for status in statuses:
        share = f"{100 * status.step // status.cell.steps} %"
        rate = "-" if status.rate is None else f"{status.rate:,.0f}"
        left = "-" if status.left is None or not status.open else clock(status.left)
        state = Text(status.state, style=STYLES.get(status.state, ""))
        values = [status.cell.values.get(axis, "") for axis in axes]
        shown.add_row(*values, state, f"{status.step:,}", share, rate, number(status.score), left)
    return shown


def headings(axes: Sequence[str]) -> Mapping[str, str]:
    """axis -> its last part, or all of it where that would not tell it from another."""
    short = Counter(axis.rpartition(".")[2] for axis in axes)
    return {axis: axis if short[axis.rpartition(".")[2]] > 1 else axis.rpartition(".")[2] for axis in axes}


def counts(statuses: Sequence[Status]) -> str:
    """How many cells are in each state, and how long it will take."""
    states = Counter(status.state for status in statuses)
    parts = [f"{states[state]:,} {state}" for state in STATES if states[state]]
    rates = [status.rate for status in statuses if status.state == RUNNING and status.rate]
    if rates and len(rates) == states[RUNNING]:
        left = sum(status.cell.steps - status.step for status in statuses if status.open)
        slowest = max(status.left or 0.0 for status in statuses if status.state == RUNNING)
        parts.append(f"about {clock(max(left / sum(rates), slowest))} left")
    return f"{len(statuses):,} cells: {', '.join(parts)}"


def ending(statuses: Sequence[Status]) -> Iterator[Table | str]:
    """What is shown at the end: the table, and of each cell that failed why, and the command that repeats it."""
    shown = [s for s in statuses if s.state != DONE][:ROWS] if len(statuses) > ROWS else statuses
    if shown:
        yield table(shown)
    yield counts(statuses)
    for status in statuses:
        if status.state == FAILED:
            first, *others = status.lines or ("for a reason that it did not tell",)
            yield f"failed: {status.cell.label}: {first}"
            yield from (f"  {line}" for line in others)
            yield f"  alone: {status.cell.command}"


def show(parts: Iterator[Table | str], console: Console) -> None:
    """Print tables, and lines as they are."""
    for part in parts:
        console.print(part, highlight=False, markup=False, soft_wrap=isinstance(part, str))


def _most_worth_seeing(statuses: Sequence[Status], room: int) -> list[Status]:
    """As many as there is room for, in their own order."""
    chosen = sorted(range(len(statuses)), key=lambda index: FIRST.index(statuses[index].state))[:room]
    return [statuses[index] for index in sorted(chosen)]


def _said(status: Status) -> str:
    """A change of state as a line."""
    text = f"{status.state:<9} {status.cell.label}"
    if status.state == RUNNING:
        start = f"from step {status.begun[-1]:,}" if status.begun[-1] else "from the start"
        return f"{text}, {start}, on {status.host}"
    if status.state == FAILED:
        return f"{text}: {(status.lines or ('?',))[0]}"
    return f"{text}, {status.step:,} steps, return {number(status.score)}"
