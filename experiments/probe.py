"""Probe a finished run: `python -m experiments.probe RUN`; how well can its networks still fit something new?"""

from __future__ import annotations

import argparse
import pickle
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.console import Console
from rich.table import Table

from agents import measurements
from experiments import folder as files
from experiments.build import build_model
from experiments.environment import environment_faults, make_vec_env
from experiments.errors import DONE, INTERRUPTED, BadInput, RunError
from experiments.schema import Config, validate
from experiments.threads import threads

Numbers = dict[str, float]


def load_config(folder: Path) -> Config:
    """The configuration of the run in `folder`; raises `BadInput` if there is nothing there to probe."""
    if not (folder / files.CONFIG).is_file():
        raise BadInput(f"{folder} holds no run: there is no {files.CONFIG}")
    reasons = {
        files.MODEL: "the run failed, or has not ended",
        files.PROBE: "it is kept at the end of a run that saw at least 1,024 observations",
    }
    if missing := [
        f"{folder} holds no {name}: {why}" for name, why in reasons.items() if not (folder / name).is_file()
    ]:
        raise BadInput(missing)
    try:
        config = validate(yaml.safe_load((folder / files.CONFIG).read_text("utf-8")))
    except (yaml.YAMLError, AttributeError) as error:
        raise BadInput(f"{folder / files.CONFIG} cannot be read: {error}") from error
    return replace(config, device="cpu", env=replace(config.env, vectorization="dummy"))


def probe_run(folder: Path, config: Config) -> tuple[Numbers, Numbers]:
    """All numbers of the run's networks on its probe batch: as they were first, and as they are now.

    An agent is built as the run built its own, which gives the first weights; then it takes the saved ones. Nothing is
    ever unpickled but tensors.
    """
    if faults := environment_faults(config):
        raise BadInput(faults)
    env = make_vec_env(config)
    try:
        batch = files.read_probe(folder)
        model = build_model(config, env)
        policy: Any = model.policy
        initial = measurements.initial_parameters(policy)
        first = measurements.of_activations(policy, measurements.look(policy, batch))
        model.warm_start(folder / files.MODEL)
        seen = measurements.look(policy, batch)
        now = measurements.of_activations(policy, seen) | measurements.gaps(policy, seen.inputs, initial)
        return first, now
    except pickle.UnpicklingError as error:  # its own text tells how to load what may do harm
        raise BadInput(
            f"{folder} cannot be probed: {files.PROBE} or {files.MODEL} holds other things than tensors"
        ) from error
    except (ValueError, KeyError, RuntimeError) as error:
        raise BadInput(f"{folder} cannot be probed: {type(error).__name__}: {error}") from error
    finally:
        env.close()


def table(first: Mapping[str, float], now: Mapping[str, float]) -> Table:
    """A row a network."""
    shown = Table(title="Fitting random functions of what each network reads", title_justify="left", title_style="bold")
    shown.add_column("network")
    for heading in ("loss at first", "loss now", "gap", "dead units", "effective rank"):
        shown.add_column(heading, justify="right")
    for network in [key.removesuffix("/plasticity_gap") for key in now if key.endswith("/plasticity_gap")]:
        dead = [f"{numbers[f'{network}/dead_fraction']:.1%}" for numbers in (first, now)]
        ranks = [numbers.get(f"{network}/effective_rank") for numbers in (first, now)]
        shown.add_row(
            network,
            f"{now[f'{network}/fresh_fit_loss']:.3g}",
            f"{now[f'{network}/fit_loss']:.3g}",
            f"{now[f'{network}/plasticity_gap']:+.2f}",
            " -> ".join(dead),
            " -> ".join("-" if rank is None else f"{rank:.3g}" for rank in ranks),
        )
    return shown


def next_commands(folder: Path, seed: int) -> list[tuple[str, str]]:
    """Commands worth typing now, each with what it does."""
    own = ("seed=", "logging.probe_every=")
    words = [word for word in files.words(folder) if not word.lstrip("+~").startswith(own)]
    again = ["python", "train.py", *words, f"seed={seed + 1}", "logging.probe_every=10"]
    return [
        (
            shlex.join(["python", "-m", "tensorboard.main", "--logdir", str(folder.parent)]),
            "curves of this run and its neighbours",
        ),
        (shlex.join(again), "another seed, with the gap as a curve while it trains"),
    ]


def run(folder: Path, console: Console) -> None:
    """Probe and print."""
    config = load_config(folder)
    torch.set_num_threads(threads(config))
    first, now = probe_run(folder, config)
    console.print(table(first, now))
    lines = [
        "loss: error after 200 steps of Adam on the run's frozen batch, 1 if nothing was learned; at first: the same",
        "from the weights the run began with. gap: the mean over functions of the logarithm of their ratio; 0 is as",
        "plastic as at first, 0.69 twice the error, below 0 better than at first. Dead units and effective rank (last",
        "hidden layer): first -> now.",
        "",
        "what to type next",
        *(f"  {command}  # {does}" for command, does in next_commands(folder, config.seed)),
    ]
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the process's exit code."""
    parser = argparse.ArgumentParser(prog="python -m experiments.probe", description=__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="the folder of a finished run")
    try:
        run(parser.parse_args(arguments).run, Console())
    except RunError as error:
        for line in error.lines:
            print(f"error: {line}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    return DONE


if __name__ == "__main__":
    sys.exit(main())
