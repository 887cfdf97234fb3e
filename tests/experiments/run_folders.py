"""Folders as runs leave them, written by hand: small, and with returns that are known."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

LENGTH = 10  # steps of an episode
NETWORKS = {"ppo": ("pi", "vf"), "sac": ("actor", "qf0", "qf1")}
CBP = {"replacement_rate": 1e-4, "maturity": 10_000}
METHODS: dict[str, dict[str, Any]] = {"none": {}, "cbp": {"cbp": CBP}, "l2": {"l2": {"strength": 1e-3}}}
VERSIONS = {
    "python": "3.11.7",
    "packages": {"torch": "2.13.0", "wandb": None},
    "commit": "e90947ef2322",
    "uncommitted_changes": False,
}


def config(
    method: str = "none",
    seed: int = 0,
    steps: int = 1000,
    env: str = "World-v1",
    algorithm: str = "ppo",
    **agent: Any,
) -> dict[str, Any]:
    """What config.yaml holds, in short."""
    return {
        "agent": {"algorithm": algorithm, "learning_rate": 1e-3, "betas": [0.9, 0.999], **agent},
        "env": {"id": env, "n_envs": 1, "kwargs": {"period": 250}, "changes": [], "schedule_seed": seed},
        "plasticity": METHODS.get(method, {method: {}}),
        "total_steps": steps,
        "seed": seed,
        "run": {"root": "runs"},
        "logging": {"alarms": True},
    }


def write_run(
    folder: Path,
    settings: Mapping[str, Any],
    returns: Callable[[int], float] | float = 0.0,
    reached: int | None = None,
    status: str | None = "finished",
    period: int = 250,
    dead: Callable[[int], float] = lambda step: 0.1,
    rank: Callable[[int], float] = lambda step: 5.0,
    values: Callable[[int], str] = str,
    command: str = "python train.py plasticity=cbp",
    measured_every: int = 50,
) -> Path:
    """A run's folder. returns: of the episode that ends at a step; reached: steps taken; status None: no result.

    period: steps from one change of the world to the next; values: of the world, by regime.
    """
    folder.mkdir(parents=True)
    end = settings["total_steps"] if reached is None else reached
    of = returns if callable(returns) else lambda step: returns
    (folder / "config.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    (folder / "command.txt").write_text(command + "\n")
    (folder / "versions.json").write_text(json.dumps(VERSIONS))
    with (folder / "episodes.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["step", "env", "regime", "return", "length"])
        for step in range(LENGTH, end + 1, LENGTH):
            rows.writerow([step, 0, (step - 1) // period, of(step), LENGTH])
    networks = NETWORKS[settings["agent"]["algorithm"]]
    with (folder / "progress.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        metrics = {"dead_fraction": dead, "effective_rank": rank, "weight_magnitude": lambda step: 0.1 + step / 1e4}
        tags = [f"plasticity/{network}/{metric}" for network in networks for metric in metrics]
        rows.writerow(["time/total_timesteps", *tags, "time/time_elapsed"])
        for step in range(measured_every, end + 1, measured_every):
            rows.writerow([step, *(of(step) for _ in networks for of in metrics.values()), step // 100])
    if status is not None:
        result = {"status": status, "steps": end, "asked_steps": settings["total_steps"], "config_hash": "0" * 8}
        (folder / "result.json").write_text(json.dumps(result))
        with (folder / "regimes.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["regime", "first_step", "last_step", "gravity", "episodes", "mean_return", "last_return"])
            for index, start in enumerate(range(0, end, period)):
                rows.writerow([index, start, min(start + period, end), values(index), period // LENGTH, 0, 0])
    if status == "failed":
        (folder / "error.log").write_text("Traceback\nNumericFailure: weights of pi are not finite\n")
    return folder


def write_sweep(
    folder: Path,
    methods: Mapping[str, float],
    seeds: int = 5,
    env: str = "World-v1",
    algorithm: str = "ppo",
    steps: int = 1000,
) -> Path:
    """Runs of several methods. methods: name -> how much its returns are above 100, seeds differing by 1."""
    for name, above in methods.items():
        for seed in range(seeds):
            settings = config(name, seed, steps, env, algorithm)
            path = folder / f"{env}-{name}-seed{seed}"
            write_run(path, settings, lambda step, seed=seed, above=above: 100 + above + seed + 0.01 * step)
    return folder
