"""What can be said of a run itself: the `run` section of the configuration. No part of what is learned."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from plasticity.settings import SettingsError, check, from_mapping, setting


@dataclass(frozen=True)
class CheckpointSettings:
    """When a run is saved, and what a resume may take. A checkpoint is made between an update and the next rollout.

    minutes: of wall-clock time from one to the next; None: none by time.
    every: environment steps from one to the next, besides; None: none by steps.
    keep: how many are kept, the newest; each has been verified after it was written.
    require_exact: refuse what cannot be resumed to the last bit, in place of a warning.
    allow_version_change: resume with another torch, numpy or mujoco than the checkpoint was made with.
    """

    minutes: float | None = setting(5.0, within="(0, inf)")
    every: int | None = setting(None, within="[1, inf)")
    keep: int = setting(2, within="[2, inf)")
    require_exact: bool = False
    allow_version_change: bool = False

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class GuardSettings:
    """What a run takes from its environments before it stops.

    reward: what becomes of a reward outside [-reward_limit, reward_limit]: `stop` ends the run, `clip` puts it on the
        limit and counts it.
    unstable_physics: episodes that may be cut because MuJoCo's simulation became unstable, all in all.
    """

    reward: str = setting("stop", choices=("stop", "clip"))
    reward_limit: float = setting(1e6, within="(0, inf)")
    unstable_physics: int = setting(100, within="[0, inf)")

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class RunSettings:
    """Where a run lives, how it survives, and what it says of itself; no part of the folder's hash.

    resume: auto goes on where there is something to go on from; must refuses where there is not; never refuses where
        there is. overwrite: replace what the folder holds.
    """

    root: str = "runs"
    dir: str | None = None  # None: <root>/<name>-seed<seed>-<hash>
    name: str | None = None
    resume: str = setting("auto", choices=("auto", "must", "never"))
    overwrite: bool = False
    threads: int | None = setting(None, within="[1, 1024]")  # None: one for each core, at most 4
    traceback: bool = False
    notes: Any = field(default_factory=dict)
    checkpoint: CheckpointSettings = field(default_factory=CheckpointSettings)
    guard: GuardSettings = field(default_factory=GuardSettings)

    def __post_init__(self) -> None:
        errors: list[str] = []
        for name, kind in {"checkpoint": CheckpointSettings, "guard": GuardSettings}.items():
            given = getattr(self, name)
            if isinstance(given, Mapping):
                try:
                    object.__setattr__(self, name, from_mapping(kind, given, name))
                except SettingsError as error:
                    errors += error.errors
            elif not isinstance(given, kind):
                errors.append(f"{name} must be a mapping of settings, got {given!r}")
        try:
            check(self)
        except SettingsError as error:
            errors += error.errors
        if not isinstance(self.notes, Mapping):
            errors.append(f"notes must be a mapping of titles to text, got {self.notes!r}")
        if isinstance(self.dir, str) and not self.dir.strip():
            errors.append(f"dir must name a folder, got {self.dir!r}")
        if isinstance(self.name, str) and not re.search(r"[A-Za-z0-9]", self.name):
            errors.append(f"name must have a letter or a digit, got {self.name!r}")
        if self.overwrite and self.resume == "must":
            errors.append("overwrite true and resume must exclude each other: one replaces what the other goes on from")
        if errors:
            raise SettingsError(errors)
