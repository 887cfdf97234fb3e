"""A run's folder: what it is called, who may write into it, and what says that it is finished."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import re
import shlex
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from experiments.errors import BadInput
from experiments.schema import Config

PROJECT = Path(__file__).resolve().parents[1]
CONFIG, COMMAND, VERSIONS, RESULT = "config.yaml", "command.txt", "versions.json", "result.json"
PROGRESS, EPISODES, REGIMES = "progress.csv", "episodes.csv", "regimes.csv"
MODEL, PICTURE, SUMMARY, ERROR_LOG = "model.zip", "summary.png", "summary.txt", "error.log"
PROBE, ALARMS = "probe.pt", "alarms.txt"
FORGETTING, ADAPTATION = "forgetting.csv", "adaptation.csv"  # with evaluation.episodes
TABLES = (PROGRESS, EPISODES, REGIMES, FORGETTING, ADAPTATION)
FILES = (CONFIG, COMMAND, VERSIONS, RESULT, *TABLES, MODEL, PROBE, ALARMS, PICTURE, SUMMARY, ERROR_LOG)
NOT_LEARNED = ("logging", "evaluation", "run")  # sections that change nothing of what is learned
PACKAGES = ("pliant-rl", "torch", "numpy", "gymnasium", "mujoco", "stable-baselines3", "hydra-core", "tensorboard")


def learned_part(config: Config) -> dict[str, Any]:
    """The configuration without its length, what is measured and where it is kept: what decides what is learned."""
    return {k: v for k, v in config.as_dict().items() if k != "total_steps" and k not in NOT_LEARNED}


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


def finished_steps(folder: Path, config: Config) -> int | None:
    """The steps of a finished run of this very configuration in `folder`, or None if there is nothing there.

    Raises `BadInput` where going on would mix or lose what the folder holds.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        _check_can_be_made(folder)
        return None
    ways = "choose another with run.dir=FOLDER, or replace the run with run.overwrite=true"
    if not folder.is_dir() or not (folder / CONFIG).is_file():
        raise BadInput(f"{folder} holds something that is not a run; choose another with run.dir=FOLDER")
    if config.run.overwrite:
        return None
    if differing := list(_differences(yaml.safe_load((folder / CONFIG).read_text("utf-8")), config.as_dict())):
        raise BadInput(f"{folder} holds a run of another configuration ({'; '.join(differing)}): {ways}")
    result = json.loads((folder / RESULT).read_text("utf-8")) if (folder / RESULT).is_file() else {}
    if result.get("status") != "finished":
        raise BadInput(f"{folder} holds a run that did not finish: {ways}")
    if result["asked_steps"] < config.total_steps:
        raise BadInput(
            f"{folder} holds a finished run of {result['steps']:,} steps, asked {config.total_steps:,}: {ways}"
        )
    return int(result["steps"])


def create(folder: Path, config: Config, command: Sequence[str]) -> None:
    """Make the folder and write what can be said before the first step. A run it holds is replaced, file by file."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in (*(folder / name for name in FILES), *folder.glob("events.out.tfevents.*")):
        path.unlink(missing_ok=True)
    (folder / CONFIG).write_text(yaml.safe_dump(config.as_dict(), sort_keys=False), "utf-8")
    (folder / COMMAND).write_text(shlex.join(command) + "\n", "utf-8")
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


def finish(folder: Path, status: str, steps: int, config: Config) -> None:
    """Record how the run ended. status: finished, stopped or failed; steps: environment steps taken."""
    result = {"status": status, "steps": steps, "asked_steps": config.total_steps, "config_hash": config_hash(config)}
    (folder / RESULT).write_text(json.dumps(result, indent=2) + "\n", "utf-8")


def _check_can_be_made(folder: Path) -> None:
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise BadInput(f"the run folder {folder} cannot be made: {existing} is not a folder that can be written to")


def _differences(old: Any, new: Mapping[str, Any]) -> Iterator[str]:
    trees = (old if isinstance(old, dict) else {}, new)
    before, after = ({**dict(_flat(_canonical(t))), "methods": list(t.get("plasticity") or {})} for t in trees)
    for key in sorted({**before, **after}):
        ignored = key == "total_steps" or key.split(".")[0] in NOT_LEARNED
        if not ignored and before.get(key) != after.get(key):
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


def _versions() -> dict[str, Any]:
    packages: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            packages[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            packages[name] = None
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": packages,
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
