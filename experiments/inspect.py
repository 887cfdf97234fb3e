"""Say what a run's folder holds, and whether it can be gone on with: `python -m experiments.inspect RUN`.

Reads only, and tensors and JSON only: nothing in the folder is changed, locked or unpickled, also while the run goes
on. Exit code 0; 5 where no checkpoint can be used; 2 where there is no run.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from safetensors import SafetensorError
from torch import Tensor

from experiments import errors, lock, resume
from experiments import folder as files
from experiments.announce import tell
from experiments.build import planned_steps
from experiments.checkpoint.store import Checkpoint, Rejected, Store
from experiments.command_line import Parser, answer
from experiments.growing import Losses
from experiments.run import ORIGIN, circumstances
from experiments.schema import Config, validate
from experiments.threads import threads


@dataclass(frozen=True)
class Saved:
    """A checkpoint. age: seconds since it was made; size: bytes, with all replay segments it needs; fault: or None."""

    path: str
    step: int
    age: float
    size: int
    fault: str | None


@dataclass(frozen=True)
class Going:
    """Going on from the newest checkpoint that can be used.

    weights: digest of the policy's tensors; inexact: why the run would not equal an undisturbed one; refused: versions
    with which `train.py` goes on only if it is told to; origin: of imported first weights.
    """

    step: int
    weights: str
    inexact: list[str]
    refused: list[str]
    origin: dict[str, Any] | None


@dataclass(frozen=True)
class Report:
    """All that is known of a run's folder.

    state: running, finished, stopped, failed, or killed, which leaves no word; holder: the process that runs it.
    """

    folder: str
    algorithm: str
    env: str
    n_envs: int
    methods: list[str]
    seed: int
    asked_steps: int
    planned_steps: int
    state: str
    steps: int
    holder: dict[str, Any] | None
    error: str | None
    checkpoints: list[Saved]
    resume: Going | None
    gaps: list[str]
    commands: list[tuple[str, str]]


def look(folder: Path) -> Report:
    """Inspect a folder; raises `BadInput` if it holds no run."""
    config = read_config(folder)
    result, holder = files.result(folder), lock.holder(folder)
    found = [one for one in Store(folder).verify() if one.path.exists()]  # a running one lets old checkpoints go
    saved = [_saved(one, folder) for one in found]
    going, losses = None, {"gaps": result.get("gaps", {}), "open": []}
    for index in reversed(range(len(found))):
        checkpoint = found[index]
        if isinstance(checkpoint, Checkpoint) and going is None:
            try:
                going, losses = _going(checkpoint, config)
            except (KeyError, TypeError, ValueError, SafetensorError) as error:
                fault = f"cannot be read: {type(error).__name__}: {error}"
                saved[index] = Saved(**{**asdict(saved[index]), "fault": fault})
    steps = max(going.step if going else 0, result.get("steps", 0))
    state = "running" if holder is not None else _ended(result, steps)
    gaps = Losses()
    gaps.load_state_dict(losses)
    return Report(
        str(folder),
        config.agent.algorithm,
        config.env.id,
        config.env.n_envs,
        list(config.plasticity),
        config.seed,
        config.total_steps,
        planned_steps(config),
        state,
        steps,
        holder,
        _last_line(folder / files.ERROR_LOG) if state == "failed" else None,
        saved,
        going,
        gaps.summary(),
        list(_commands(folder, state, saved, going)),
    )


def digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over name, type, shape and bytes of each tensor, in the order of their names: equal if all bits are."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        array = tensors[name].detach().cpu().contiguous().numpy()
        total.update(f"{name} {array.dtype} {array.shape}\n".encode())
        total.update(array.tobytes())
    return total.hexdigest()


def read_config(folder: Path) -> Config:
    """The configuration of the run in a folder; raises `BadInput` if it holds none."""
    path = folder / files.CONFIG
    if not path.is_file():
        raise errors.BadInput(f"{folder} holds no run: there is no {files.CONFIG}")
    try:
        return validate(yaml.safe_load(path.read_text("utf-8")))
    except (yaml.YAMLError, AttributeError, UnicodeDecodeError) as error:
        raise errors.BadInput(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    except errors.BadInput as error:
        raise errors.BadInput([f"{path}: {line}" for line in error.lines]) from None


def _saved(one: Checkpoint | Rejected, folder: Path) -> Saved:
    made = one.path.stat().st_mtime
    age, step = max(0.0, time.time() - made), int(one.path.name)
    if isinstance(one, Rejected):
        size = sum(path.stat().st_size for path in one.path.glob("*"))
        return Saved(str(one.path), step, age, size, one.reason)
    digests = [*one.manifest["files"].values(), *one.manifest["segments"].values()]
    return Saved(str(one.path), step, age, sum(each["size"] for each in digests), None)


def _going(checkpoint: Checkpoint, config: Config) -> tuple[Going, dict[str, Any]]:
    """What there is to say of going on from here, and what could not be written until then."""
    facts = {**circumstances(config), "threads": threads(config)}
    tree = checkpoint.read()
    going = Going(
        checkpoint.step,
        digest(tree["policy"]),
        resume.inexactness(checkpoint, facts),
        resume.pinned(resume.changed_versions(checkpoint, facts)),
        checkpoint.manifest.get(ORIGIN),
    )
    return going, tree["parts"]["losses"]


def _ended(result: Mapping[str, Any], steps: int) -> str:
    """How the last process ended that worked on the run: one that was killed has left no word, or an older one's."""
    return str(result["status"]) if result and result["steps"] == steps else "killed"


def _last_line(path: Path) -> str | None:
    lines = path.read_text("utf-8", "replace").split("\n") if path.is_file() else []
    return next((line for line in reversed(lines) if line.strip()), None)


def _commands(folder: Path, state: str, saved: Sequence[Saved], going: Going | None) -> Iterator[tuple[str, str]]:
    again = ["python", "train.py", *files.words(folder), f"run.dir={files.quoted(str(folder))}"]
    if state == "running":
        pass
    elif going is None and (saved or state == "finished"):
        yield shlex.join([*again, "run.overwrite=true"]), "start anew; what is there is lost"
    elif going is None:
        yield shlex.join(again), "start anew: it was never saved"
    elif state == "finished":
        yield shlex.join(["python", "-m", "experiments.probe", str(folder)]), "how plastic its networks are still"
        longer = [word for word in again if not word.startswith("total_steps=")]
        yield shlex.join([*longer, f"total_steps={2 * going.step}"]), "go on to twice as many steps"
    else:
        allowed = ["run.checkpoint.allow_version_change=true"] if going.refused else []
        yield shlex.join([*again, *allowed]), f"go on from step {going.step:,}"
    yield shlex.join(["python", "-m", "tensorboard.main", "--logdir", str(folder)]), "its curves"


def lines(report: Report) -> Iterator[str]:
    """The report in words."""
    methods = ", ".join(report.methods) or "no method"
    at_once = f", {report.n_envs} at once" if report.n_envs > 1 else ""
    asked = "" if report.planned_steps == report.asked_steps else f" (asked {report.asked_steps:,})"
    yield f"{report.folder}"
    yield f"  {report.algorithm.upper()} with {methods} on {report.env}{at_once}, seed {report.seed}"
    yield f"  {_state(report)}, of {report.planned_steps:,}{asked}"
    if report.error is not None:
        yield f"  {report.error}"
    going = report.resume
    if going is not None and going.origin is not None:
        yield f"  first weights from {going.origin['file']}, SHA-256 {going.origin['sha256']}"
    yield ""
    yield "checkpoints" if report.checkpoints else "no checkpoint"
    for one in report.checkpoints:
        fault = "verified" if one.fault is None else f"cannot be used: {one.fault}"
        yield f"  step {one.step:>12,}  {_ago(one.age):>14}  {one.size / 1e6:>9,.2f} MB  {fault}"
    if going is not None:
        yield f"  weights of step {going.step:,}: SHA-256 {going.weights}"
        yield "  going on will be exact" if not going.inexact else "  going on will not be exact to the last bit:"
        yield from (f"    {sentence}" for sentence in going.inexact)
    elif report.checkpoints:
        yield "  none of them can be used"
    if report.gaps:
        yield "could not be written"
        yield from (f"  {gap}" for gap in report.gaps)
    yield ""
    yield "what to type next"
    yield from (f"  {command}  # {does}" for command, does in report.commands)


def _state(report: Report) -> str:
    if report.holder is not None:
        who = (
            "another process"
            if not report.holder
            else "process {pid} on host {host} since {started}".format_map(
                {"pid": "?", "host": "?", "started": "?", **report.holder}
            )
        )
        return f"running in {who}, saved at step {report.steps:,}"
    if report.state == "killed":
        return f"ended without a word (killed, or the machine went down), saved at step {report.steps:,}"
    return f"{report.state} after {report.steps:,} steps"


def _ago(seconds: float) -> str:
    units = (("days", 86400), ("h", 3600), ("min", 60), ("s", 1))
    name, size = next((unit for unit in units if seconds >= 2 * unit[1]), units[-1])
    return f"{seconds / size:.0f} {name} ago"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the process's exit code."""
    return answer(lambda: _main(sys.argv[1:] if arguments is None else arguments))


def _main(arguments: Sequence[str]) -> int:
    parser = Parser(
        prog="python -m experiments.inspect",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="the folder of a run")
    parser.add_argument("--json", action="store_true", help="for machines: one JSON object")
    flags = parser.parse_args(arguments)
    report = look(flags.run)
    tell([json.dumps(asdict(report), indent=1)] if flags.json else lines(report), Console())
    return errors.DONE if report.resume is not None else errors.NO_CHECKPOINT


if __name__ == "__main__":
    sys.exit(main())
