"""What is said before the first step: what will run, for how long, and where it departs from the defaults."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from experiments.build import gradient_steps_per_step, planned_steps
from experiments.schema import Config
from plasticity import method_config

# Settings that count gradient steps, and are easier to judge in environment steps
GRADIENT_STEP_SETTINGS = ("maturity", "period")


def announce(config: Config, folder: Path, console: Console) -> None:
    """Print the plan of a run."""
    for line in plan(config, folder):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def plan(config: Config, folder: Path) -> list[str]:
    """The plan of a run, a line each."""
    methods = ", ".join(config.plasticity) or "no method"
    env = f"{config.env.id}, {config.env.n_envs} at once" if config.env.n_envs > 1 else config.env.id
    lines = [f"{config.agent.algorithm.upper()} with {methods} on {env}, seed {config.seed}"]
    lines += [f"  {text}" for text in config.run.notes.values()]
    for name, settings in config.plasticity.items():
        lines += [f"  {line}" for line in _departures(name, settings, config)]
    planned = planned_steps(config)
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


def _show(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
