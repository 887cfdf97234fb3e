"""The words after `python train.py`: flags, overrides, and what goes to stderr when they cannot be used."""

from __future__ import annotations

import argparse
import os
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from experiments import errors

if TYPE_CHECKING:
    from experiments.schema import Config

EXAMPLES = (
    ("python train.py", "PPO with continual backprop on Slippery Ant, a few minutes"),
    (
        "python train.py agent=sac env=ns_pendulum plasticity=cbp seed=3 total_steps=20_000",
        "SAC on a changing pendulum",
    ),
    (
        "python train.py plasticity=cbp plasticity.cbp.replacement_rate=1e-3 plasticity.cbp.utility=zero_contribution",
        "settings of a method",
    ),
    ("python train.py plasticity=[l2,cbp]", "two methods, acting in this order"),
    (
        "python train.py experiment=slippery_ant_paper plasticity=none seed=0",
        "the published protocol: 20 million steps, and its baseline",
    ),
    (
        "python train.py env=gym env.id=Hopper-v5 "
        """env.changes='[{target: gravity, when: "every:5e4", to: "uniform:0.5,1.5"}]'""",
        "any Gymnasium environment, made non-stationary",
    ),
    ("python train.py env=gym env.id=my_module:MyEnv-v0", "one of your own: importing my_module registers it"),
    (
        "python train.py logging.probe_every=10 logging.landscape=true logging.histograms=true",
        "measure plasticity more closely: logging.* never changes what is learned",
    ),
    (
        "python train.py env=ns_cartpole evaluation.episodes=5",
        "what is forgotten, and how long it takes to recover: tests on frozen regimes; evaluation.fresh=true adds more",
    ),
    (
        "python train.py -m plasticity=none,l2,redo,cbp seed='range(10)'",
        "forty runs, as many at once as there are cores; the same command again does what is missing",
    ),
    ("python train.py -m sweep=sac_pendulum seed=0", "a sweep from its file, one seed of it"),
    ("python train.py logging.trackers=[wandb,mlflow]", "tell Weights & Biases and MLflow too; or trackio"),
    ("python train.py --cfg job agent=sac", "show the resolved configuration, run nothing"),
)
FLAGS = (
    ("-m, --multirun", "a run for each combination of the values in the words: seed='range(5)' plasticity=none,cbp"),
    ("--jobs N", "with -m: so many runs at once, else one for each core; see docs/sweeps.md for clusters"),
    ("--cells", "with -m: list the runs and how far each is, and stop"),
    ("--dashboard", "with -m: serve Dask's page about the workers, on this machine only"),
    ("--cfg job", "print the resolved configuration as YAML and stop"),
    ("--config-dir DIR", "look for choices in DIR too (DIR/env/mine.yaml is then env=mine)"),
    ("--help", "this text"),
)


class Parser(argparse.ArgumentParser):
    """One whose complaints are `BadInput`, as all others are."""

    def error(self, message: str) -> NoReturn:
        raise errors.BadInput(message)


def main(words: Sequence[str]) -> int:
    """Do what the words say; the exit code. Faults go to stderr, a line each, without a traceback unless asked for."""
    return answer(lambda: _main(words), traceback="run.traceback=true" in words)


def answer(do: Callable[[], int], traceback: bool = False, interrupted: str = "stopped before training began") -> int:
    """The exit code of a command; what keeps it from being done goes to stderr. interrupted: what to say to Ctrl-C."""
    try:
        return do()
    except errors.RunError as error:
        if traceback:
            raise
        for line in error.lines:
            print(f"error: {line}", file=sys.stderr)
        if error.resume is not None:
            print(f"resume with: {error.resume}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"error: {interrupted}", file=sys.stderr)
        return errors.INTERRUPTED


def _main(words: Sequence[str]) -> int:
    parser = Parser(prog="train.py", add_help=False, allow_abbrev=False)
    parser.add_argument("--help", "-h", action="store_true")
    parser.add_argument("--cfg", choices=["job"])
    parser.add_argument("--config-dir", type=Path, action="append", default=[])
    parser.add_argument("--multirun", "-m", action="store_true")
    parser.add_argument("--jobs", type=int)
    parser.add_argument("--cells", action="store_true")
    parser.add_argument("--dashboard", action="store_true")
    parser.add_argument("overrides", nargs="*")
    flags = parser.parse_intermixed_args(list(words))
    from experiments import compose  # not earlier: what it imports takes a second, and a wrong flag should not

    if flags.help:
        from experiments.sweep import named

        _print(help_text(compose.available(flags.config_dir), named.available(flags.config_dir)))
        return errors.DONE
    _check_flags(flags)
    if flags.multirun:
        from experiments.sweep.command import sweep

        command = ["python", "train.py", *words]
        return sweep(flags.overrides, flags.config_dir, command, flags.jobs, flags.cells, flags.dashboard)
    config, choices = configuration(flags.overrides, flags.config_dir)
    if flags.cfg:
        _print(compose.to_yaml(config.as_dict()).rstrip())
        return errors.DONE
    from envs.renderer import RENDERERS, set_aside_renderer
    from experiments.run import Run, train

    if renderer := set_aside_renderer():
        known = ", ".join(RENDERERS)
        print(f"warning: MUJOCO_GL={renderer} is none of {known}: set aside, nothing is rendered here", file=sys.stderr)
    return train(Run(config, choices, typed(flags.overrides, flags.config_dir), ["python", "train.py", *words]))


def _check_flags(flags: argparse.Namespace) -> None:
    """Raise `BadInput` for flags that do not go together."""
    faults = []
    if flags.multirun and flags.cfg:
        faults.append("--cfg job shows one run; --cells lists those of a sweep")
    if flags.jobs is not None and flags.jobs < 1:
        faults.append(f"--jobs must be at least 1, got {flags.jobs}")
    if not flags.multirun:
        asked = {"--jobs": flags.jobs is not None, "--cells": flags.cells, "--dashboard": flags.dashboard}
        faults += [f"{flag} is for sweeps: add -m" for flag, given in asked.items() if given]
        faults += [f"{word}: a sweep is many runs: add -m" for word in flags.overrides if word.startswith("sweep=")]
    if faults:
        raise errors.BadInput(faults)


def configuration(overrides: Sequence[str], directories: Sequence[Path]) -> tuple[Config, dict[str, tuple[str, ...]]]:
    """What the words of a command line ask for, and the choices (group -> names); raises `BadInput` with all faults."""
    from experiments.compose import compose
    from experiments.schema import validate

    composed = compose(overrides, directories)
    try:
        config = validate(composed.tree)
    except errors.BadInput as error:
        raise errors.BadInput(dict.fromkeys([*composed.errors, *error.lines])) from None
    if composed.errors:
        raise errors.BadInput(composed.errors)
    return config, composed.choices


def typed(overrides: Sequence[str], directories: Sequence[Path]) -> list[str]:
    """The same words, to be typed again."""
    return [*(f"--config-dir={directory}" for directory in directories), *overrides]


def _print(text: str) -> None:
    """Print to a reader who may have read enough, as `| head` has."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains once more as it ends


def help_text(choices: dict[str, dict[str, str]], sweeps: dict[str, str]) -> str:
    """Groups with their choices, sweeps, the grammar, and commands to copy."""
    lines = ["python train.py [group=choice ...] [key=value ...]", ""]
    for group, names in choices.items():
        lines.append(f"{group}=")
        lines += [_entry(name, text, 20) for name, text in names.items()]
    lines.append("-m sweep=")
    lines += [_entry(name, text, 20) for name, text in sweeps.items()]
    lines += [
        "",
        "Any setting can be typed: agent.gamma=0.9 env.n_envs=4 total_steps=2e4; --cfg job shows them all.",
        "",
    ]
    lines += [_entry(flag, text, 20) for flag, text in FLAGS]
    lines += ["", "Examples"]
    for command, does in EXAMPLES:
        lines += [f"  {command}", f"      {does}"]
    return "\n".join(lines)


def _entry(name: str, text: str, column: int) -> str:
    indent = " " * (column + 4)
    return textwrap.fill(text, 116, initial_indent=f"  {name:<{column}}  ", subsequent_indent=indent)
