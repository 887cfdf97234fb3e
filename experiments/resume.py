"""What a run folder holds for a configuration: nothing, something to go on from, or a run that is complete."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from experiments import folder as files
from experiments.build import planned_steps
from experiments.checkpoint.store import Checkpoint, Store
from experiments.errors import BadInput, NoCheckpoint
from experiments.schema import Config

PINNED = ("torch", "numpy", "mujoco")  # whose versions must be those a checkpoint was made with
NUMERIC = (*PINNED, "gymnasium", "stable-baselines3", "pliant-rl")  # which have a say in what numbers come out
CIRCUMSTANCES = {
    "threads": "torch threads",
    "products": "whose products of matrices are used",
    "vector": "vector environment",
    "device": "device",
}
VECTORIZATION = "env.vectorization: "  # may differ: what is learned does not depend on it, bits may, see `vector`
WAYS = "choose another folder with run.dir=FOLDER, or replace the run with run.overwrite=true"


@dataclass(frozen=True)
class Found:
    """What a folder holds. checkpoint: to go on from, None to start anew; complete: there is nothing left to do.

    notes: what the user is told of it; inexact: why going on will not equal an undisturbed run to the last bit.
    """

    checkpoint: Checkpoint | None = None
    complete: bool = False
    notes: list[str] = field(default_factory=list)
    inexact: list[str] = field(default_factory=list)


def look(folder: Path, config: Config, facts: Mapping[str, Any]) -> Found:
    """What to do with a folder that this process has locked. facts: what a manifest would say of this process.

    Raises `BadInput` where going on would mix or lose what the folder holds, `NoCheckpoint` where none can be used.
    Changes nothing but to remove what was never completed.
    """
    run = config.run
    if not files.used(folder) or run.overwrite:
        if run.resume == "must":
            raise BadInput(f"run.resume=must: {folder} holds no run to go on from")
        return Found()
    if not (folder / files.CONFIG).is_file():
        raise BadInput(f"{folder} holds something that is not a run; choose another folder with run.dir=FOLDER")
    old = yaml.safe_load((folder / files.CONFIG).read_text("utf-8"))
    differing = [line for line in files.differences(old, config.as_dict()) if not line.startswith(VECTORIZATION)]
    if differing:
        raise BadInput([f"{folder} holds a run of another configuration: {WAYS}", *differing])
    if run.resume == "never":
        raise BadInput(f"run.resume=never: {folder} holds a run already; {WAYS}")
    store = Store(folder)
    leftovers = store.clean()
    notes = [f"removed {path}, which was never completed" for path in leftovers if not path.name.endswith(".removed")]
    result = files.result(folder)
    planned = planned_steps(config)
    if result.get("status") == "finished" and result["steps"] == planned:
        return Found(complete=True, notes=[*notes, *_not_measured(old, config)])
    checkpoint, rejected = store.newest()
    if checkpoint is None and rejected:
        raise NoCheckpoint(
            [f"{one.path} is damaged: {one.reason}" for one in rejected]
            + [f"no checkpoint of {folder} can be used, and nothing was changed; to start anew: run.overwrite=true"]
        )
    if checkpoint is None:
        if run.resume == "must":
            raise BadInput(f"run.resume=must: {folder} holds no checkpoint to go on from")
        if result.get("status") == "finished":
            raise BadInput(f"{folder} holds a finished run of {result['steps']:,} steps and no checkpoint: {WAYS}")
        return Found(notes=[*notes, f"{folder} holds no checkpoint: starting anew from step 0"])
    lost = [f"{one.path} is damaged and was put aside: {one.reason}" for one in rejected]
    if rejected:
        newest = int(rejected[0].path.name)
        lost.append(
            f"going on from step {checkpoint.step:,} instead; {newest - checkpoint.step:,} steps are done again"
        )
    if checkpoint.step > planned:
        raise BadInput(f"{folder} holds a run of {checkpoint.step:,} steps already, asked {planned:,}: {WAYS}")
    _check_versions(checkpoint, facts, config)
    store.discard(rejected)
    inexact = inexactness(checkpoint, facts)
    return Found(checkpoint, notes=[*notes, *lost, *_longer(result, planned)], inexact=inexact)


def _longer(result: Mapping[str, Any], planned: int) -> list[str]:
    if result.get("status") != "finished":
        return []
    return [
        f"this run was finished after {result['steps']:,} steps and goes on to {planned:,}: the world's schedule is a "
        "function of the step and goes on where it was; learning rates are constant, methods count on"
    ]


def _not_measured(old: Any, config: Config) -> list[str]:
    """Settings of what is measured that a complete run was not made with: it says nothing of them."""
    new = config.as_dict()
    changed = [
        line
        for section in ("logging", "evaluation")
        for line in files.differences({section: old.get(section)}, {section: new[section]}, ignored=())
    ]
    if not changed:
        return []
    return [
        f"it was run with other settings of what is measured ({'; '.join(changed)}); to measure that too, repeat it "
        "with run.overwrite=true, or beside it with run.name=NAME"
    ]


def changed_versions(checkpoint: Checkpoint, facts: Mapping[str, Any]) -> list[str]:
    """`name old -> new` for each package that is not as it was when the checkpoint was made."""
    then = checkpoint.manifest["versions"]
    return [
        f"{name} {then.get(name)} -> {version}"
        for name, version in facts["versions"].items()
        if then.get(name) != version
    ]


def pinned(changed: Iterable[str]) -> list[str]:
    """Those of `changed_versions` with which a run does not go on unasked."""
    return [text for text in changed if text.split()[0] in PINNED]


def vector(config: Config) -> str:
    """What the bits of a run depend on of how its environments are stepped: in a process each, or in this one."""
    return "subproc" if config.env.vectorization == "subproc" else "dummy"


def inexactness(checkpoint: Checkpoint, facts: Mapping[str, Any]) -> list[str]:
    """Why going on from a checkpoint in this process would not be exact, a sentence each; best empty."""
    then, changed = checkpoint.manifest, changed_versions(checkpoint, facts)
    reasons = [f"versions changed ({', '.join(changed)})"] if changed else []
    for name, what in CIRCUMSTANCES.items():
        if then.get(name, facts[name]) != facts[name]:  # what an older version did not write is taken for the same
            reasons.append(f"{what} changed ({then[name]} -> {facts[name]})")
    now = [f"{reason} at step {checkpoint.step:,}" for reason in reasons]
    return list(dict.fromkeys([*then["inexact"], *now]))


def _check_versions(checkpoint: Checkpoint, facts: Mapping[str, Any], config: Config) -> None:
    changed = pinned(changed_versions(checkpoint, facts))
    if changed and not config.run.checkpoint.allow_version_change:
        raise NoCheckpoint(
            f"{checkpoint.path} was made with other versions ({', '.join(changed)}), so numbers may differ: install "
            "those, or go on all the same with run.checkpoint.allow_version_change=true"
        )
