"""A run's folder: what it is called, who may write into it, and what says that it is finished."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from experiments.checkpoint.store import FOLDER as CHECKPOINTS
from experiments.errors import BadInput
from experiments.lock import LOCK
from experiments.schema import Config

PROJECT = Path(__file__).resolve().parents[1]
CONFIG, COMMAND, VERSIONS, RESULT = "config.yaml", "command.txt", "versions.json", "result.json"
PROGRESS, EPISODES, REGIMES = "progress.csv", "episodes.csv", "regimes.csv"
MODEL, PICTURE, SUMMARY, ERROR_LOG = "model.zip", "summary.png", "summary.txt", "error.log"
PROBE, ALARMS = "probe.pt", "alarms.txt"
NORMALIZATION = "normalization.json"  # with env.normalize_observations or env.normalize_rewards

TRACKED = "trackers.json"  # with logging.trackers: where the run is kept in each
PLAYED = "play"  # folder of what `experiments.play` writes; nothing that a run needs
FORGETTING, ADAPTATION = "forgetting.csv", "adaptation.csv"  # with evaluation.episodes
TABLES = (PROGRESS, EPISODES, REGIMES, FORGETTING, ADAPTATION)
FILES = (
    *(CONFIG, COMMAND, VERSIONS, RESULT, *TABLES, MODEL, NORMALIZATION, PROBE, ALARMS, PICTURE, SUMMARY, ERROR_LOG),
    TRACKED,
)
NOT_LEARNED = ("logging", "evaluation", "run")  # sections that change nothing of what is learned
PACKAGES = ("pliant-rl", "torch", "numpy", "gymnasium", "mujoco", "stable-baselines3", "hydra-core", "tensorboard")


def learned_part(config: Config) -> dict[str, Any]:
    """The configuration without its length, what is measured, where it is kept and how environments are stepped."""
    found = {k: v for k, v in config.as_dict().items() if k != "total_steps" and k not in NOT_LEARNED}
    return found | {"env": {k: v for k, v in found["env"].items() if k != "vectorization"}}


def config_hash(config: Config) -> str:
    """Eight hexadecimal digits that stand for what is learned; 2e6 and 2_000_000 count as the same number."""
    learned = learned_part(config)
    learned["plasticity"] = [[name, settings] for name, settings in learned["plasticity"].items()]  # in order of action
    text = json.dumps(_canonical(learned), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def run_folder(config: Config, choices: Mapping[str, Sequence[str]]) -> Path:
    """Where this run lives. choices: group -> the names chosen, for the readable part of the name."""
    if config.run.dir is not None:
        return Path(config.run.dir)
    env = config.env.id if choices["env"] == ("gym",) else choices["env"][0]
    experiment = [name for name in choices["experiment"] if name != "none"]
    parts = [*experiment, choices["agent"][0], env, "+".join(choices["plasticity"])]
    name = config.run.name or "-".join(parts)
    slug = re.sub(r"[^A-Za-z0-9_.+-]+", "-", name).strip(".-")
    return Path(config.run.root) / f"{slug}-seed{config.seed}-{config_hash(config)}"


def used(folder: Path) -> bool:
    """Whether there is anything in a folder but a lock; raises `BadInput` if it is no folder."""
    if folder.exists() and not folder.is_dir():
        raise BadInput(f"the run folder {folder} cannot be made: there is a file of that name")
    return folder.exists() and any(path.name != LOCK for path in folder.iterdir())


def make(folder: Path) -> None:
    """Make the folder itself; raises `BadInput` where that is not possible."""
    used(folder)
    _check_can_be_made(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"the run folder {folder} cannot be made: {error}") from error


def begin(folder: Path, config: Config, command: Sequence[str], anew: bool) -> None:
    """Write what can be said before the first step. anew: a run that the folder holds is replaced, file by file."""
    if anew:
        for name in (CHECKPOINTS, PLAYED):
            shutil.rmtree(folder / name, ignore_errors=True)
        for path in (*(folder / name for name in FILES), *folder.glob("events.out.tfevents.*")):
            path.unlink(missing_ok=True)
    (folder / CONFIG).write_text(yaml.safe_dump(config.as_dict(), sort_keys=False), "utf-8")
    with (folder / COMMAND).open("a", encoding="utf-8") as file:
        file.write(shlex.join(command) + "\n")
    (folder / VERSIONS).write_text(json.dumps(_versions(), indent=2) + "\n", "utf-8")


def write_probe(folder: Path, batch: tuple[Tensor, Tensor | None]) -> None:
    """Keep the batch that plasticity was measured on: observations, and actions where critics need them."""
    torch.save(
        {"observations": batch[0].cpu(), "actions": None if batch[1] is None else batch[1].cpu()}, folder / PROBE
    )


def read_probe(folder: Path) -> tuple[Tensor, Tensor | None]:
    """The batch that `write_probe` kept; reads tensors only, so a stranger's file can do no harm."""
    found = torch.load(folder / PROBE, "cpu", weights_only=True)
    return found["observations"], found["actions"]


def finish(folder: Path, status: str, steps: int, config: Config, **more: Any) -> None:
    """Record how the run ended. status: finished, stopped or failed; steps: environment steps taken."""
    result = {"status": status, "steps": steps, "asked_steps": config.total_steps, "config_hash": config_hash(config)}
    result |= more
    (folder / RESULT).write_text(json.dumps(result, indent=2) + "\n", "utf-8")


def words(folder: Path) -> list[str]:
    """The words that the run was last started with; those that name, replace or demand it are left out."""
    path = folder / COMMAND
    lines = path.read_text("utf-8").splitlines() if path.is_file() else []
    typed = shlex.split(lines[-1]) if lines else []
    typed = typed[4 if typed[1:2] == ["-m"] else 2 :]  # python train.py, or python -m experiments.import_weights ZIP
    joined = re.sub(r"^--config-dir\n(?=[^-])", "--config-dir=", "\n".join(typed), flags=re.MULTILINE).split("\n")
    own = ("run.dir=", "run.name=", "run.overwrite=", "run.resume=")
    return [word for word in joined if "=" in word and not word.lstrip("+~").startswith(own)]


def quoted(path: str) -> str:
    """A path as the value of a word such as run.dir=PATH, in Hydra's grammar."""
    if re.fullmatch(r"[\w./+-]+", path):
        return path
    return "'" + re.sub(r"(\\*)'", r"\1\1\\'", path) + "'"


def result(folder: Path) -> dict[str, Any]:
    """What `finish` recorded; empty where it has not been called."""
    path = folder / RESULT
    found: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    return found


def _check_can_be_made(folder: Path) -> None:
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise BadInput(f"the run folder {folder} cannot be made: {existing} is not a folder that can be written to")


def differences(
    old: Any, new: Mapping[str, Any], ignored: Collection[str] = ("total_steps", *NOT_LEARNED)
) -> Iterator[str]:
    """A line `key: old -> new` for each setting that differs; ignored: sections and settings that may."""
    trees = (old if isinstance(old, dict) else {}, new)
    before, after = ({**dict(_flat(_canonical(t))), "methods": list(t.get("plasticity") or {})} for t in trees)
    for key in sorted({**before, **after}):
        if key.split(".")[0] not in ignored and before.get(key) != after.get(key):
            yield f"{key}: {before.get(key)} -> {after.get(key)}"


def _flat(tree: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def _canonical(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _canonical(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def package_versions(names: Iterable[str] = PACKAGES) -> dict[str, str | None]:
    """Installed versions; None for what is not installed."""
    found: dict[str, str | None] = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def _versions() -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": package_versions(),
        "commit": _git("rev-parse", "HEAD"),
        "uncommitted_changes": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "torch_threads": torch.get_num_threads(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(PROJECT), *arguments], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
