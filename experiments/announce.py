"""What is said before the first step: what will run, for how long, and where it departs from the defaults."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from stable_baselines3.common.vec_env import VecEnv

from agents.algorithm import PlasticAlgorithm
from agents.clock import PREFIX
from experiments.build import gradient_steps_per_step, planned_steps
from experiments.environment import stepping
from experiments.schema import Config
from plasticity import method_config, network_options

# Settings that count gradient steps, and are easier to judge in environment steps
GRADIENT_STEP_SETTINGS = ("maturity", "period")


def announce(config: Config, folder: Path, model: PlasticAlgorithm, console: Console) -> None:
    """Print the plan of a run."""
    assert model.env is not None
    lines = plan(config, folder, changes_within(model.env, planned_steps(config)))
    tell([*lines, *(f"  {line}" for line in stepping(config, model.env)), how(model)], console)


def how(model: PlasticAlgorithm) -> str:
    """What a run is worked out with: whose rollouts and updates, and how many threads."""
    reason, threads = model.why_stock(), torch.get_num_threads()
    update = "rollouts and updates by hand" if reason is None else f"Stable-Baselines3's own updates ({reason})"
    if threads == 1:
        return f"  {update}, one thread"
    return f"  {update}, {threads} threads; with several runs side by side, run.threads=1 each is faster"


def tell(lines: Iterable[str], console: Console) -> None:
    """Print lines as they are."""
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def changes_within(env: VecEnv, steps: int) -> int | None:
    """How often the world of the first sub-environment changes in so many environment steps; None if it never does."""
    if not env.has_attr("due"):
        return None
    return int(env.env_method("due", steps, indices=[0])[0][f"{PREFIX}regime"])


def plan(config: Config, folder: Path, changes: int | None) -> list[str]:
    """The plan of a run, a line each; changes: as from `changes_within`."""
    methods = ", ".join(config.plasticity) or "no method"
    env = f"{config.env.id}, {config.env.n_envs} at once" if config.env.n_envs > 1 else config.env.id
    lines = [f"{config.agent.algorithm.upper()} with {methods} on {env}, seed {config.seed}"]
    lines += [f"  {text}" for text in config.run.notes.values()]
    for name, settings in config.plasticity.items():
        lines += [f"  {line}" for line in _departures(name, settings, config)]
        lines += [f"  {line}" for line in _idle(name, settings, config, changes)]
    lines += [f"  {line}" for line in _replaced_settings(config)]
    planned = planned_steps(config)
    if changes is not None:
        lines.append(f"  changes of the world within this run: {changes or 'none'}")
    asked = "" if planned == config.total_steps else f" (asked {config.total_steps:,})"
    return [*lines, f"  will run {planned:,}{asked} environment steps; everything about it goes to {folder}"]


def _departures(name: str, settings: dict[str, Any], config: Config) -> list[str]:
    default: Any = method_config(name, {})
    lines = []
    for key, usual in asdict(default).items():
        value = settings[key]
        if value == usual:
            continue
        in_steps = ""
        if key in GRADIENT_STEP_SETTINGS and not isinstance(value, str):
            in_steps = f" gradient steps, about {value / gradient_steps_per_step(config):,.0f} environment steps"
        lines.append(f"{name}.{key} {_show(value)}{in_steps} (default {_show(usual)})")
    return lines


def _idle(name: str, settings: dict[str, Any], config: Config, changes: int | None) -> list[str]:
    """What a method will not do in a run this short, or in a world that does not change."""
    steps = int(planned_steps(config) * gradient_steps_per_step(config))
    if settings.get("period") == "change":
        return [] if changes else [f"{name} acts at changes of the world: it will not act in this run"]
    late = [key for key in ("maturity", "period", "start") if key in settings and settings[key] >= steps]
    lines = [f"{name}.{key} {settings[key]:,}: this run has {steps:,} gradient steps, it will not act" for key in late]
    if not late and "end" in settings and settings["end"] > steps:
        lines.append(
            f"{name}.end {settings['end']:,}: this run has {steps:,} gradient steps, its schedule will not end"
        )
    return lines


def _replaced_settings(config: Config) -> list[str]:
    """The agent's settings that a method sets itself."""
    options = network_options(config.plasticity)
    lines = []
    if options.activation is not None:
        lines.append(
            f"activation {options.activation.__name__}, in place of agent.activation={config.agent.activation}"
        )
    if options.betas is not None and options.betas != config.agent.betas:
        lines.append(f"Adam's betas {options.betas}, in place of agent.betas={config.agent.betas}")
    return lines


def _show(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
