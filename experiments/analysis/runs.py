"""The runs below some folders: what each is and how far it got, without its curves."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from experiments import folder as files
from experiments.checkpoint.store import FOLDER as CHECKPOINTS
from experiments.errors import BadInput
from experiments.lock import holder

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # eight times as fast, where there is one
TAIL = 4096  # bytes at the end of a table
STATES = {
    "finished": "finished",
    "running": "still going on",
    "stopped": "was stopped",
    "failed": "failed",
    "killed": "ended without a word",
}


@dataclass(frozen=True)
class RunFolder:
    """A run. name: its path below the folders that were asked for; steps: environment steps that it got to.

    state: one of `STATES`; fault: the last line of a failed run's log; longest: steps of its longest recent episode.
    """

    path: Path
    name: str
    config: Mapping[str, Any]
    state: str
    steps: int
    fault: str
    longest: int

    @property
    def seed(self) -> int:
        """The run's seed."""
        return int(self.config["seed"])

    @property
    def world(self) -> tuple[int, int]:
        """Runs that agree in this, of the same environment, met the same world from the same seed."""
        return self.seed, int(self.config["env"].get("schedule_seed", 0))

    @property
    def asked(self) -> int:
        """The environment steps that were asked for."""
        return int(self.config["total_steps"])

    def command(self) -> str:
        """What was typed, the last time."""
        lines = _text(self.path / files.COMMAND).splitlines()
        return lines[-1] if lines else ""

    def versions(self) -> dict[str, Any]:
        """Versions of Python and packages, and the commit; empty where they are not known."""
        try:
            found = json.loads(_text(self.path / files.VERSIONS) or "{}")
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}


@dataclass(frozen=True)
class Unreadable:
    """A folder that looks like a run and cannot be read, and why."""

    name: str
    reason: str


def find(folders: Sequence[Path]) -> tuple[list[RunFolder], list[Unreadable]]:
    """All runs in or below the folders, in the order of their names; raises `BadInput` where there is none."""
    runs: dict[Path, RunFolder] = {}
    unreadable: dict[Path, Unreadable] = {}
    if faults := [f"RUNS must be folders, got {one}: {_instead(one)}" for one in folders if not one.is_dir()]:
        raise BadInput(faults)
    above = Path(os.path.commonpath([folder.resolve() for folder in folders]))
    for folder in folders:
        for path in _below(folder):
            real = path.resolve()  # the same run, asked for twice, is one
            name = str(real.relative_to(above)) if real.is_relative_to(above) and real != above else real.name
            if real not in runs and real not in unreadable:
                try:
                    runs[real] = _read(path, name)
                except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
                    reason = " ".join(f"{type(error).__name__}: {error}".split())
                    unreadable[real] = Unreadable(name, reason)
    if not runs:
        lines = [
            f"no run found in or below {', '.join(map(str, folders))}: a run's folder holds {files.CONFIG}, "
            f"{files.EPISODES} and {files.PROGRESS}, as `python train.py` writes them to runs/"
        ]
        raise BadInput([*lines, *(f"{one.name} cannot be read: {one.reason}" for one in unreadable.values())])
    return sorted(runs.values(), key=lambda run: (run.name, run.path)), list(unreadable.values())


def _instead(folder: Path) -> str:
    if folder.exists():
        return "that is a file"
    parent = next(path for path in folder.absolute().parents if path.is_dir())
    names = sorted(path.name for path in parent.iterdir() if path.is_dir() and not path.name.startswith("."))
    return f"there is no such folder; {parent} has {', '.join(names[:8]) or 'no folders'}" + "…" * (len(names) > 8)


def _below(folder: Path) -> Iterator[Path]:
    for where, folders, names in os.walk(folder):
        if files.CONFIG in names:
            folders.clear()  # a run holds no further runs
            yield Path(where)
        else:
            folders[:] = sorted(name for name in folders if name != CHECKPOINTS and not name.startswith("."))


def _read(path: Path, name: str) -> RunFolder:
    loader = LOADER(_text(path / files.CONFIG))
    try:
        config = loader.get_single_data()
    finally:
        loader.dispose()
    if not isinstance(config, dict):
        raise ValueError(f"{files.CONFIG} holds no settings")
    missing = [key for key in ("agent", "env", "seed", "total_steps") if config.get(key) is None]
    if missing:
        raise ValueError(f"{files.CONFIG} has no {', '.join(missing)}")
    int(config["seed"]), int(config["total_steps"]), config["env"]["id"], config["agent"]["algorithm"]
    config["plasticity"] = config.get("plasticity") or {}
    result = json.loads(_text(path / files.RESULT) or "{}")
    steps, longest = _end_of_episodes(path / files.EPISODES)
    steps = max(steps, _last_step(path / files.PROGRESS))
    if holder(path) is not None:
        state = "running"
    elif result and result["steps"] >= steps:  # else it went on after that, and was killed
        state, steps = str(result["status"]), int(result["steps"])
    else:
        state = "killed"
    fault = ""
    if state == "failed":
        fault = next((line for line in reversed(_text(path / files.ERROR_LOG).splitlines()) if line.strip()), "")
    return RunFolder(path, name, config, state, steps, fault, longest)


def _end_of_episodes(path: Path) -> tuple[int, int]:
    """The step of the last episode, and the longest of the last episodes."""
    rows = [line.split(",") for line in tail(path)]
    whole = [row for row in rows if len(row) == 5 and row[0].isdigit()]
    return (int(whole[-1][0]), max(int(row[4]) for row in whole)) if whole else (0, 0)


def _last_step(path: Path) -> int:
    found = [line.partition(",")[0] for line in tail(path, 16 * TAIL)]
    return max((int(text) for text in found[1:] if text.isdigit()), default=0)  # the first may be half a line


def tail(path: Path, size: int = TAIL) -> list[str]:
    """The last whole lines of a file, the first of them perhaps cut; none where there is no file."""
    try:
        with path.open("rb") as file:
            end = file.seek(0, io.SEEK_END)
            file.seek(max(0, end - size))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return []
    return text[: text.rfind("\n") + 1].splitlines()


def _text(path: Path) -> str:
    return path.read_text("utf-8") if path.is_file() else ""
