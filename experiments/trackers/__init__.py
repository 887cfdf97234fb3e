"""Experiment trackers, each an optional extra (`logging.trackers`): what they are called, and whether they are there.

Each is a module of its own, imported when a run begins that asks for it.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Iterator, Sequence

from experiments.trackers.tracker import About, Tracker

TRACKERS = ("wandb", "mlflow", "trackio")  # names of packages and of extras
FILE = ("sqlalchemy", "alembic")  # what MLflow needs for a file of its own


def tracker_faults(names: Sequence[str]) -> Iterator[str]:
    """A sentence for each that is not installed; imports nothing."""
    for name in names:
        needed = [name, *(FILE if name == "mlflow" and not os.environ.get("MLFLOW_TRACKING_URI") else ())]
        missing = [package for package in needed if importlib.util.find_spec(package) is None]
        if missing:
            yield (
                f"logging.trackers={name} needs {' and '.join(missing)}, which is not installed: "
                f"python -m pip install 'pliant-rl[{name}]'"
            )


def make_tracker(name: str, about: About) -> Tracker:
    """The tracker of this name, which has not begun."""
    made: Tracker = importlib.import_module(f"experiments.trackers.to_{name}").make(about)
    return made


__all__ = ["TRACKERS", "About", "Tracker", "make_tracker", "tracker_faults"]
