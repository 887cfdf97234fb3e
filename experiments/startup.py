"""The check made before anything else is imported: are `agents`, `envs` and `plasticity` really this project's?

The names are short, and other distributions use them (an `agents` is on the package index). Imported by mistake, a
stranger's module fails in a place that explains nothing.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from pathlib import Path

OURS = "pliant-rl"
PACKAGES = ("agents", "envs", "plasticity")


def name_clash(root: Path) -> str | None:
    """One sentence naming the first package of ours that something else provides, or None.

    root: the project's folder.
    """
    providers = importlib.metadata.packages_distributions()
    for package in PACKAGES:
        found = importlib.util.find_spec(package)
        where = Path(found.origin).resolve() if found is not None and found.origin else None
        others = sorted({name for name in providers.get(package, ()) if name.lower().replace("_", "-") != OURS})
        if others:
            culprit = " and ".join(f'"{name}"' for name in others)
            return (
                f'the installed distribution {culprit} also provides a top-level package "{package}", which Pliant '
                f"needs for itself: uninstall it here (pip uninstall {' '.join(others)}) or use a fresh environment"
            )
        if where is None or root.resolve() not in where.parents:
            return (
                f'the package "{package}" would be imported from {where or "nowhere"} and not from {root.resolve()}: '
                f"another package of that name comes first on Python's path, or Pliant is incomplete"
            )
    return None
