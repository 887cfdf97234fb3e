"""What a tracker is told of a run, and what it can do. Whatever it raises is caught by `Trackers`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

PROJECT = "pliant"  # what runs are filed under, unless the service's own environment variable says otherwise


@dataclass(frozen=True)
class About:
    """What a tracker is told of a run.

    folder: the run's, whose name is the run's name; group: its methods; tags: words to look for; config: nested
    settings; version: the hash of what is learned.
    """

    folder: Path
    group: str
    tags: tuple[str, ...]
    config: Mapping[str, Any]
    version: str


class Tracker(Protocol):
    """A connection to one service, for one run."""

    def begin(self, last: str | None) -> tuple[str, str]:
        """Begin, or go on with the run that had the id `last`; its id, and where to look at it, in words."""
        ...

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Scalars by TensorBoard tag. step: environment steps."""
        ...

    def picture(self, path: Path, step: int) -> None:
        """Keep the run's picture, a PNG."""
        ...

    def end(self, status: str) -> None:
        """The run has ended. status: finished, stopped or failed."""
        ...


def unless_set(**defaults: str) -> None:
    """Set environment variables that a service reads, where the user has not set them."""
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
