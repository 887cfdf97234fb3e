"""Does a network still learn its thirtieth task as well as its first? Every method of the registry, one after another.

256 random inputs get random labels of 10 classes, and an MLP memorises them by minibatches with Adam. Then the labels
are drawn anew, thirty times; nothing that was learnt helps with the next task, and plain training learns less and less.

    python -m experiments.label_permutation

Related problems: Lyle et al., "Understanding plasticity in neural networks", ICML 2023, arXiv 2303.01486; Kumar et al.,
arXiv 2308.11958 ("random label MNIST"). Sizes and the number of steps are our own, chosen so that the plain network
loses its plasticity within a minute.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor, nn

from experiments.errors import BadInput, NumericFailure
from experiments.jobs import Advance, add_jobs, each, exit_code, number
from experiments.label_permutation_report import (
    FEWEST_SEEDS,
    Accuracies,
    Recorded,
    markdown,
    read_accuracies,
    summary,
    write_accuracies,
    write_figure,
)
from plasticity import (
    METHODS,
    Chain,
    MethodConfig,
    Network,
    NetworkOptions,
    Randomness,
    UnitAdam,
    attach,
    build_intervention,
    hidden_layers,
    method_config,
    network_options,
    rebuild,
    uniform_bound,
)
from plasticity.settings import unknown

EXPERIMENT = "label_permutation"  # part of the name of every random stream
INPUTS, FEATURES, CLASSES = 256, 32, 10
WIDTH = 64  # units of each of the two hidden layers
TASKS, EPOCHS, BATCH = 30, 30, 64
TASK = EPOCHS * INPUTS // BATCH  # gradient steps on one task: 120
LEARNING_RATE = 3e-3
LEARNERS = ("plain", "linear", *METHODS)

# Defaults are made for RL, for a million gradient steps and more; here there are 3,600. What is not named is a default.
SETTINGS: dict[str, dict[str, Any]] = {
    # a unit must be able to mature, and several to be replaced, within a task; the values of examples/supervised.py
    "cbp": {"replacement_rate": 1e-3, "maturity": 50},
    # every 1000 steps would be every eighth task: once a task
    "redo": {"period": TASK},
    "grama": {"period": TASK},
    # half the weights are kept at each new task, which is announced
    "shrink_and_perturb": {"period": "change"},
    # a new network for each task: what no plasticity lost looks like
    "reset": {"period": "change"},
    # returned to once a task; as published, the slow copy remembers half a period
    "hare_tortoise": {"momentum": 1 - 2 / TASK, "period": TASK},
    # thresholds follow the silences of each task; 10,000 steps would be after the end
    "self_normalised_resets": {"update_period": TASK},
    # published as shares of training: pruned from 20 to 80 % of it, exchanged until 75 %
    "magnitude_pruning": {"start": TASKS * TASK // 5, "end": 4 * TASKS * TASK // 5, "period": TASK},
    "rigl": {"end": 3 * TASKS * TASK // 4},
    # the paper grows until the end of training
    "neuroplastic_expansion": {"end": TASKS * TASK},
}


def learner_config(method: str) -> MethodConfig | None:
    """The method's settings here; None for the learners that have none, `plain` and `linear`."""
    return method_config(method, SETTINGS.get(method)) if method in METHODS else None


class Learner:
    """A network of two hidden layers (or none: a linear learner) with a method attached to its optimizer.

    Biases start at 0, weights uniform as Kaiming's for ReLU, those of the output on +-sqrt(3 / inputs).
    """

    def __init__(self, config: MethodConfig | None, seed: int, hidden: Sequence[int] = (WIDTH, WIDTH)):
        widths, draw = [FEATURES, *hidden, CLASSES], Randomness(seed, EXPERIMENT, "learner")
        self.model = nn.Sequential()
        for place, (inputs, outputs) in enumerate(pairwise(widths)):
            linear, activation = nn.Linear(inputs, outputs), nn.ReLU() if place < len(hidden) else None
            with torch.no_grad():
                linear.weight.copy_(draw.uniform(outputs, inputs, bound=uniform_bound(linear, "kaiming", activation)))
                linear.bias.zero_()
            self.model.extend([linear] if activation is None else [linear, activation])
        self.optimizer = UnitAdam(self.model.parameters(), lr=LEARNING_RATE)
        self.method = Chain()
        if config is not None:
            network = self._network(network_options(config))
            self.method = build_intervention(config, network, seed)
            attach(self.method, network)

    def _network(self, options: NetworkOptions) -> Network:
        if options.betas is not None:
            self.optimizer.param_groups[0]["betas"] = options.betas
        network = Network("net", hidden_layers(self.model), [self.optimizer])
        if not options.rebuild:
            return network
        rebuild(self.model, [network], options)
        network.close()
        return Network("net", hidden_layers(self.model), [self.optimizer])

    def learn(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """One gradient step; how many of the labels (batch,) the network had right just before it."""
        logits: Tensor = self.model(inputs)
        self.optimizer.zero_grad()
        F.cross_entropy(logits, labels).backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return logits.argmax(1).eq(labels).sum()


def train(
    config: MethodConfig | None,
    seed: int,
    *,
    hidden: Sequence[int] = (WIDTH, WIDTH),
    tasks: int = TASKS,
    epochs: int = EPOCHS,
    progress: Callable[[int], object] = lambda tasks: None,
) -> list[float]:
    """Learn one task after another; the online accuracy of each: the share of all its examples that were right when
    they were seen, before the step that learns from them. Data and first weights depend on the seed only."""
    draw = Randomness(seed, EXPERIMENT, "data").generator
    inputs = torch.randn(INPUTS, FEATURES, generator=draw)
    learner = Learner(config, seed, hidden)
    accuracies = []
    for task in range(tasks):
        labels = torch.randint(CLASSES, (INPUTS,), generator=draw)
        if task:
            learner.method.notice_change()
        right = torch.zeros((), dtype=torch.int64)
        for _ in range(epochs):
            order = torch.randperm(INPUTS, generator=draw)
            for batch in order.view(-1, BATCH):
                right += learner.learn(inputs[batch], labels[batch])
        if not all(bool(parameter.isfinite().all()) for parameter in learner.model.parameters()):
            raise NumericFailure(f"weights are no longer finite after task {task + 1} with seed {seed}")
        accuracies.append(int(right) / (INPUTS * epochs))
        progress(1)
    return accuracies


def conditions(method: str, seeds: int) -> str:
    """All that decides a method's numbers, as JSON: rows of a file with other conditions are not taken over."""
    config = learner_config(method)
    common = {"seeds": seeds, "tasks": TASKS, "epochs": EPOCHS, "batch": BATCH, "lr": LEARNING_RATE, "width": WIDTH}
    return json.dumps({**common, "settings": asdict(config) if config is not None else {}})  # type: ignore[call-overload]


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.label_permutation",
        description="Memorising random labels, again and again: online accuracy of every method.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--methods", nargs="+", default=list(LEARNERS), metavar="NAME", help=f"methods to run, of {', '.join(LEARNERS)}"
    )
    parser.add_argument("--seeds", type=number, default=5, help="runs of each method (seeds 0, 1, ...)")
    add_jobs(parser)
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/label_permutation"),
        metavar="DIR",
        help="folder for accuracies.csv, table.md and accuracies.png; methods in the first are not run again, unless "
        "their settings have changed",
    )
    options = parser.parse_args(arguments)
    options.methods = list(dict.fromkeys(options.methods))
    faults = [unknown("method", name, LEARNERS) for name in options.methods if name not in LEARNERS]
    if options.seeds < FEWEST_SEEDS:
        faults.append(f"--seeds must be at least {FEWEST_SEEDS}, for the confidence intervals; got {options.seeds}")
    if options.jobs < 1:
        faults.append(f"--jobs must be at least 1, got {options.jobs}")
    if options.out.exists() and not options.out.is_dir():
        faults.append(f"--out must be a folder, but {options.out} is a file")
    if faults:
        raise BadInput(faults)
    return options


def _train_one(seeds: int, method: str, advance: Advance) -> Accuracies:
    config, hidden = learner_config(method), () if method == "linear" else (WIDTH, WIDTH)
    try:
        return np.array([train(config, seed, hidden=hidden, progress=advance) for seed in range(seeds)])
    except NumericFailure as error:
        raise NumericFailure(f"{method}: {error}") from None


def run(options: argparse.Namespace, console: Console) -> None:
    """Train every method that is not in the file yet, writing what is done after each, and say what came out."""
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "accuracies.csv"
    wanted = {method: conditions(method, options.seeds) for method in options.methods}
    recorded = {m: r for m, r in read_accuracies(path).items() if m not in wanted or r.conditions == wanted[m]}
    missing = [method for method in wanted if method not in recorded]
    if len(missing) < len(wanted):
        console.print(f"already in {path}: {', '.join(m for m in wanted if m in recorded)}", soft_wrap=True)
    work = partial(_train_one, options.seeds)
    for method, accuracies, _ in each(missing, work, options.jobs, options.seeds * TASKS, console):
        recorded[method] = Recorded(wanted[method], accuracies)
        write_accuracies(path, {name: recorded[name] for name in LEARNERS if name in recorded})
    shown = {method: recorded[method].accuracies for method in wanted}
    figure = write_figure(options.out / "accuracies.png", shown, 1 / CLASSES)
    table = options.out / "table.md"
    table.write_text(markdown(shown), encoding="utf-8")
    console.print(summary(shown))
    console.print(f"Figure: {figure}\nTable: {table}\nEvery seed: {path}", soft_wrap=True, highlight=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the process's exit code."""
    kept = "methods that had finished are in accuracies.csv of the --out folder; the same command goes on from there"
    return exit_code(lambda: run(parse(arguments), Console()), kept)


if __name__ == "__main__":
    sys.exit(main())
