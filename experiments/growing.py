"""Files that grow while a run trains, by whole pieces: a full disk costs pieces, never the run or half a line."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass
class Gap:
    """What could not be written, one failure after another. first, last: environment steps; rows: how many."""

    first: int
    last: int
    rows: int


class Losses:
    """All that a run could not write, by file. The first loss is said, once; training goes on.

    say: what a sentence is given to; None: a warning of Python's logging.
    """

    def __init__(self, say: Callable[[str], None] | None = None):
        self.say = say or logging.getLogger(__name__).warning
        self.gaps: dict[str, list[Gap]] = {}
        self._open: set[str] = set()
        self._said = False

    def note(self, path: Path, first: int, last: int, rows: int, error: OSError) -> None:
        """Rows for `path` are lost, of these environment steps."""
        gaps = self.gaps.setdefault(path.name, [])
        if path.name in self._open:
            gaps[-1].last = last
            gaps[-1].rows += rows
        else:
            gaps.append(Gap(first, last, rows))
            self._open.add(path.name)
        if not self._said:
            self._said = True
            self.say(
                f"{path} cannot be written ({error.strerror or error}) at step {last:,}: training goes on without it, "
                "writing is tried again with every row, and what is missing will be listed at the end"
            )

    def over(self, path: Path) -> None:
        """`path` can be written again."""
        self._open.discard(path.name)

    def as_dict(self) -> dict[str, list[dict[str, int]]]:
        """The gaps, file by file, as JSON takes them."""
        return {name: [asdict(gap) for gap in gaps] for name, gaps in self.gaps.items()}

    def summary(self) -> list[str]:
        """A line for each file with gaps; nothing if there are none."""
        return [
            f"{name}: {sum(gap.rows for gap in gaps):,} rows could not be written, "
            + ", ".join(f"at step {g.first:,}" if g.first == g.last else f"steps {g.first:,}-{g.last:,}" for g in gaps)
            for name, gaps in self.gaps.items()
        ]

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint of a run must keep."""
        return {"gaps": self.as_dict(), "open": sorted(self._open)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.gaps = {name: [Gap(**gap) for gap in gaps] for name, gaps in state["gaps"].items()}
        self._open = set(state["open"])


class GrowingFile:
    """A file that is written piece by piece, each wholly or not at all; a new one replaces what was there.

    header: what it begins with. size: bytes that are in place. Whatever lies beyond, half a piece or what came after
    the checkpoint that a run goes on from, is cut off. The methods that take a step never raise `OSError`: where
    writing fails, that is noted in `losses`, and tried again with the next piece.
    """

    def __init__(self, path: Path, losses: Losses, header: bytes = b""):
        self.path, self.losses, self.header = path, losses, header
        self.size = 0
        self._descriptor: int | None = None

    def append(self, piece: bytes, step: int, rows: int = 1, *, since: int | None = None) -> bool:
        """Write a piece of so many rows; whether that was possible. since, step: its first and last step."""
        piece = piece if self.size else self.header + piece
        if not piece:
            return True
        return self._attempt(lambda: self._append(piece), step if since is None else since, step, rows)

    def replace(self, content: bytes, step: int, rows: int = 1) -> bool:
        """Write all of it anew; whether that was possible. rows: how many of them are new."""
        return self._attempt(lambda: self.begin(content), step, step, rows)

    def begin(self, content: bytes) -> None:
        """The same for what must not fail: raises `OSError`, and the file is then as it was."""
        partial = _partial(self.path)
        try:
            with partial.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, self.path)
        except OSError:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
            raise
        self.close()
        self.size = len(content)

    def cut(self, size: int) -> None:
        """Go on after so many bytes. Raises `OSError`; says so where the file is shorter than that."""
        self.close()
        self.size = size
        self._open()
        if self.size < size:
            self.losses.say(f"{self.path} has {self.size:,} bytes, and had {size:,} at the checkpoint: rows are gone")

    def discard(self) -> None:
        """Remove the file, and what was left of replacing it."""
        self.close()
        self.size = 0
        self.path.unlink(missing_ok=True)
        _partial(self.path).unlink(missing_ok=True)

    def close(self) -> None:
        """Give the file back; the next piece opens it again."""
        if self._descriptor is not None:
            with suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = None

    def _attempt(self, write: Callable[[], None], first: int, last: int, rows: int) -> bool:
        try:
            write()
        except OSError as error:
            self.losses.note(self.path, first, last, rows, error)
            return False
        self.losses.over(self.path)
        return True

    def _append(self, piece: bytes) -> None:
        descriptor = self._open()
        rest = memoryview(piece)
        try:
            while rest:
                rest = rest[os.write(descriptor, rest) :]
        except OSError:
            with suppress(OSError):
                os.ftruncate(descriptor, self.size)
            self.close()
            raise
        self.size += len(piece)

    def _open(self) -> int:
        if self._descriptor is None:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
            try:
                there = os.fstat(descriptor).st_size
                if there > self.size:
                    os.ftruncate(descriptor, self.size)
            except OSError:
                os.close(descriptor)
                raise
            self._descriptor, self.size = descriptor, min(self.size, there)
        return self._descriptor


def sync(paths: Iterable[Path]) -> None:
    """See to it that what is in growing files outlives a crash of the machine, also while more is written to them.

    They are opened anew for it: another thread may close or replace them meanwhile.
    """
    for path in paths:
        with suppress(OSError):  # if something is lost by this, `cut` will say so
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def _partial(path: Path) -> Path:
    """What a file that is being replaced is called until it is whole."""
    return path.with_name(path.name + ".partial")
