"""How many threads a run works with: torch's, and those that step simulations."""

from __future__ import annotations

import os

from experiments.schema import Config

MOST = 4  # by itself; products of the sizes that agents have gain little from more


def threads(config: Config) -> int:
    """`run.threads`, or one for each core that this process may use, up to `MOST`."""
    return config.run.threads or min(usable_cores(), MOST)


def usable_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
