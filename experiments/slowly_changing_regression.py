"""The cheap proof: does a network that learns online for ever lose its plasticity, and does a method keep it?

The slowly-changing regression problem of Dohare et al., "Loss of plasticity in deep continual learning", Nature
632:768 (2024), and of arXiv 2108.06325, where it is called bit flipping. A learner sees one example at a time; most of
its input bits stay the same for 10,000 examples and then change, and with them the part of the target that it can see.

    python -m experiments.slowly_changing_regression

All seeds learn side by side, each with its own target, data, first weights and method randomness, so that no seed's
result depends on which others run beside it. The methods are the very classes that agents use.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn

from experiments.errors import BadInput, NumericFailure
from experiments.jobs import Advance, add_jobs, each, exit_code, number
from experiments.seedwise import EXPERIMENT, SGD, Learners
from experiments.seedwise_methods import attach_method
from experiments.slowly_changing_regression_report import Errors, summary, write_errors, write_figure
from plasticity import (
    ContinualBackpropConfig,
    L2Config,
    L2InitConfig,
    MethodConfig,
    Randomness,
    ReDoConfig,
    SettingsError,
    ShrinkAndPerturbConfig,
)
from plasticity.settings import from_mapping, unknown

BITS, SLOW_BITS = 20, 15
PERIOD = 10_000  # examples between two changes of the slow bits
TARGET_UNITS, BETA = 100, 0.7
UNITS = 5  # the learner's; far fewer than the target's, so that it can never stop learning
LEARNING_RATE = 0.01
BIN = 20_000  # examples averaged into one point of the figure
VARIANTS = ("all", "one")


@dataclass(frozen=True)
class Learner:
    """What learns: a method (or none) on a hidden layer of so many units."""

    config: MethodConfig | None = None
    units: int = UNITS
    activation: type[nn.Module] = nn.ReLU


METHODS: dict[str, Learner] = {
    "backprop": Learner(),
    "linear": Learner(units=0),
    "tanh": Learner(activation=nn.Tanh),
    "l2": Learner(L2Config(strength=1e-3)),
    "shrink_and_perturb": Learner(ShrinkAndPerturbConfig(shrink=0.5, perturb=0.5, period=PERIOD, init="kaiming")),
    "redo": Learner(ReDoConfig(threshold=0.1, period=1000, init="kaiming")),
    "l2_init": Learner(L2InitConfig(strength=2e-2)),
    "cbp": Learner(
        ContinualBackpropConfig(
            replacement_rate=1e-4, maturity=10, decay=0.99, utility="adaptable_contribution", init="kaiming"
        )
    ),
}


class Target:
    """The function to learn: 100 linear threshold units with weights and biases of +-1 under a linear output of +-1.

    A unit fires when w x + b > 0.7 (20 + 1) - S, S = (number of negative weights) + b / 2.
    """

    def __init__(self, seed: int):
        draw = Randomness(seed, EXPERIMENT, "target").generator
        self.weight, self.bias, self.output, self.output_bias = (
            torch.randint(2, shape, generator=draw) * 2.0 - 1
            for shape in ((TARGET_UNITS, BITS), (TARGET_UNITS,), (TARGET_UNITS,), ())
        )
        negative = (self.weight < 0).sum(-1)
        self.threshold = BETA * (BITS + 1) - (negative + self.bias / 2)

    def __call__(self, bits: Tensor) -> Tensor:
        """bits: (examples, 20), of 0.0 and 1.0 -> targets (examples,)."""
        fires = bits @ self.weight.T + self.bias > self.threshold
        return fires.float() @ self.output + self.output_bias


class Stream:
    """One seed's examples; at each change all slow bits are re-drawn, or `one` of them is flipped."""

    def __init__(self, seed: int, variant: str = "all"):
        self.target, self.variant = Target(seed), variant
        self.draw = Randomness(seed, EXPERIMENT, "data").generator
        self.weights = 2 ** torch.arange(BITS - SLOW_BITS)  # number a pattern of fast bits
        self.fast = (torch.arange(2 ** (BITS - SLOW_BITS))[:, None] & self.weights > 0).long()  # all there are, (32, 5)
        self.slow: Tensor | None = None

    def regime(self, examples: int) -> tuple[Tensor, Tensor]:
        """The examples up to the next change: bits (examples, 20) and targets (examples,)."""
        if self.slow is None or self.variant == "all":
            self.slow = torch.randint(2, (SLOW_BITS,), generator=self.draw)
        else:
            self.slow[torch.randint(SLOW_BITS, (), generator=self.draw)] ^= 1
        patterns = torch.cat([self.slow.expand(len(self.fast), -1), self.fast], 1).float()
        fast = torch.randint(2, (examples, BITS - SLOW_BITS), generator=self.draw)
        drawn = (fast * self.weights).sum(1)
        return patterns[drawn], self.target(patterns)[drawn]


def train(
    learner: Learner,
    seeds: Sequence[int],
    examples: int,
    *,
    period: int = PERIOD,
    bin_size: int = BIN,
    learning_rate: float = LEARNING_RATE,
    variant: str = "all",
    progress: Callable[[int], object] = lambda examples: None,
) -> Tensor:
    """Learn `examples` examples with each seed; the mean squared error of each bin of examples, (seeds, bins), float64.

    progress: told how many examples were just learnt.
    """
    learners = Learners(seeds, BITS, learner.units, learner.activation)
    optimizer = SGD(list(learners.parameters()), learning_rate)
    if learner.config is not None:
        attach_method(learner.config, learners.network(optimizer), seeds)
    streams = [Stream(seed, variant) for seed in seeds]
    totals = torch.zeros(examples // bin_size, len(seeds), dtype=torch.float64)
    for start in range(0, examples, period):
        regimes = [stream.regime(min(period, examples - start)) for stream in streams]
        bits, targets = (torch.stack(parts, 1) for parts in zip(*regimes, strict=True))
        errors = []
        for one, wanted in zip(bits.unsqueeze(-1), targets[..., None, None], strict=True):
            errors.append(learners.learn(one, wanted))
            optimizer.step()
        squared = torch.stack(errors).flatten(1).double().square()
        if not squared.isfinite().all():
            raise NumericFailure(f"an error is no longer finite between examples {start} and {start + period}")
        totals.index_add_(0, torch.arange(start, start + len(squared)) // bin_size, squared)
        progress(len(squared))
    return totals.T / bin_size


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.slowly_changing_regression",
        description="Slowly-changing regression (Dohare et al., Nature 632:768, 2024): error of online learners.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--methods", nargs="+", default=list(METHODS), metavar="NAME", help=f"methods to run, of {', '.join(METHODS)}"
    )
    parser.add_argument("--seeds", type=number, default=20, help="how many independent learners a method")
    parser.add_argument("--first-seed", type=number, default=0, metavar="SEED", help="seeds SEED, SEED + 1, ...")
    parser.add_argument(
        "--examples", type=number, default=1_000_000, help=f"examples each learner sees, a multiple of {BIN:,}"
    )
    parser.add_argument(
        "--variant", choices=VARIANTS, default="all", help="at each change, draw all slow bits anew or flip one of them"
    )
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="METHOD.SETTING=VALUE", help="other settings, such as l2.strength=1e-4"
    )
    add_jobs(parser)
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/slowly_changing_regression"),
        metavar="DIR",
        help="folder for errors.csv and errors.png; files of these names in it are overwritten",
    )
    options = parser.parse_args(arguments)
    faults = [unknown("method", name, METHODS) for name in options.methods if name not in METHODS]
    options.learners = _with_settings(options.set, faults)
    if options.seeds < 2:
        faults.append(f"--seeds must be at least 2, or there is no confidence interval; got {options.seeds}")
    if options.examples < 2 * BIN or options.examples % BIN:
        faults.append(f"--examples must be a multiple of {BIN:,} and at least {2 * BIN:,}, got {options.examples:,}")
    if options.jobs < 1:
        faults.append(f"--jobs must be at least 1, got {options.jobs}")
    if options.out.exists() and not options.out.is_dir():
        faults.append(f"--out must be a folder, but {options.out} is a file")
    if faults:
        raise BadInput(faults)
    return options


def _with_settings(words: Sequence[str], faults: list[str]) -> dict[str, Learner]:
    """`METHODS` with what words such as `l2.strength=1e-4` ask for; what cannot be used goes to `faults`."""
    learners = dict(METHODS)
    configurable = [name for name, learner in METHODS.items() if learner.config is not None]
    for word in words:
        path, equals, value = word.partition("=")
        name, dot, key = path.partition(".")
        config: Any = learners[name].config if name in configurable else None
        if not (equals and dot):
            faults.append(f"--set takes METHOD.SETTING=VALUE, got {word!r}")
        elif config is None:
            faults.append(f"--set {word}: {unknown('method with settings', name, configurable)}")
        else:
            try:
                settings: Mapping[str, Any] = {**asdict(config), key: value}
                config = from_mapping(type(config), settings, f"--set {name}")
                learners[name] = replace(learners[name], config=config)
                if getattr(config, "period", None) == "change":
                    faults.append(
                        f"--set {name}.period must be a number of examples; the world changes every {PERIOD:,}"
                    )
            except SettingsError as error:
                faults += error.errors
    return learners


def _train_one(options: argparse.Namespace, method: str, advance: Advance) -> Errors:
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    try:
        trained = train(
            options.learners[method], seeds, options.examples, bin_size=BIN, variant=options.variant, progress=advance
        )
    except NumericFailure as error:
        raise NumericFailure(f"{method}: {error}") from None
    return trained.numpy()


def run(options: argparse.Namespace, console: Console) -> None:
    """Train every method, writing what is done after each, and say what came out."""
    options.out.mkdir(parents=True, exist_ok=True)
    methods = list(dict.fromkeys(options.methods))
    errors: dict[str, Errors] = {}
    for method, trained, _ in each(methods, partial(_train_one, options), options.jobs, options.examples, console):
        errors = {name: errors.get(name, trained) for name in methods if name in errors or name == method}
        write_errors(options.out / "errors.csv", errors, BIN)
    figure = write_figure(options.out / "errors.png", errors, BIN)
    console.print(summary(errors, BIN))
    console.print(
        f"Figure: {figure}\nErrors of every seed: {options.out / 'errors.csv'}", soft_wrap=True, highlight=False
    )
    console.print("Next, the same method in an agent: python train.py plasticity=cbp", highlight=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the process's exit code."""
    return exit_code(
        lambda: run(parse(arguments), Console()), "methods that had finished are in errors.csv of the --out folder"
    )


if __name__ == "__main__":
    sys.exit(main())
