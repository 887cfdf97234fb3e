"""The cheap proof: does a network that learns online for ever lose its plasticity, and does a method keep it?

The slowly-changing regression problem of Dohare et al., "Loss of plasticity in deep continual learning", Nature
632:768 (2024), and of arXiv 2108.06325, where it is called bit flipping. A learner sees one example at a time; most of
its input bits stay the same for 10,000 examples and then change, and with them the part of the target that it can see.

    python -m experiments.slowly_changing_regression

All seeds learn side by side, each with its own target, data, first weights and method randomness, so that no seed's
result depends on which others run beside it. `cbp` is the very `ContinualBackprop` that agents use, attached alike.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from experiments.errors import DONE, INTERRUPTED, BadInput, NumericFailure, RunError
from experiments.seedwise import EXPERIMENT, Learners, attach_method
from experiments.slowly_changing_regression_report import summary, write_errors, write_figure
from plasticity import (
    ContinualBackpropConfig,
    L2Config,
    MethodConfig,
    Randomness,
    SettingsError,
    ShrinkAndPerturbConfig,
)
from plasticity.settings import convert, unknown

BITS, SLOW_BITS = 20, 15
PERIOD = 10_000  # examples between two changes of the slow bits
TARGET_UNITS, BETA = 100, 0.7
UNITS = 5  # the learner's; far fewer than the target's, so that it can never stop learning
LEARNING_RATE = 0.01
BIN = 20_000  # examples averaged into one point of the figure

METHODS: dict[str, MethodConfig | None] = {
    "backprop": None,
    "linear": None,
    "cbp": ContinualBackpropConfig(
        replacement_rate=1e-4, maturity=10, decay=0.99, utility="adaptable_contribution", init="kaiming"
    ),
    "l2": L2Config(strength=1e-3),
    # the default `network` would take the scale of fresh weights from all seeds' first ones together
    "shrink_and_perturb": ShrinkAndPerturbConfig(shrink=0.5, perturb=0.5, period=PERIOD, init="kaiming"),
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
    """One seed's examples; every slow bit is re-drawn at each change."""

    def __init__(self, seed: int):
        self.target = Target(seed)
        self.draw = Randomness(seed, EXPERIMENT, "data").generator

    def regime(self, examples: int) -> tuple[Tensor, Tensor]:
        """The examples up to the next change: bits (examples, 20) and targets (examples,)."""
        slow = torch.randint(2, (1, SLOW_BITS), generator=self.draw).expand(examples, -1)
        fast = torch.randint(2, (examples, BITS - SLOW_BITS), generator=self.draw)
        bits = torch.cat([slow, fast], 1).float()
        return bits, self.target(bits)


def train(
    method: str,
    seeds: Sequence[int],
    examples: int,
    *,
    period: int = PERIOD,
    bin_size: int = BIN,
    learning_rate: float = LEARNING_RATE,
    config: MethodConfig | None = None,
    progress: Callable[[int], object] = lambda examples: None,
) -> Tensor:
    """Learn `examples` examples with each seed; the mean squared error of each bin of examples, (seeds, bins), float64.

    config: settings other than those of `METHODS[method]`. progress: told how many examples were just learnt.
    """
    learners = Learners(seeds, BITS, 0 if method == "linear" else UNITS)
    optimizer = torch.optim.SGD(learners.parameters(), lr=learning_rate)
    if (config := config or METHODS[method]) is not None:
        attach_method(config, learners.network(optimizer), seeds)
    streams = [Stream(seed) for seed in seeds]
    totals = torch.zeros(examples // bin_size, len(seeds), dtype=torch.float64)
    for start in range(0, examples, period):
        regimes = [stream.regime(min(period, examples - start)) for stream in streams]
        bits, targets = (torch.stack(parts, 1) for parts in zip(*regimes, strict=True))
        errors = []
        for one, wanted in zip(bits, targets.unsqueeze(-1), strict=True):
            errors.append(learners.learn(one, wanted))
            optimizer.step()
        squared = torch.stack(errors).squeeze(-1).double().square()
        if not squared.isfinite().all():
            raise NumericFailure(
                f"{method}: an error is no longer finite between examples {start} and {start + period}"
            )
        totals.index_add_(0, torch.arange(start, start + len(squared)) // bin_size, squared)
        progress(len(squared))
    return totals.T / bin_size


def number(text: str) -> int:
    """A count such as 1000000, 1_000_000 or 1e6."""
    try:
        count: int = convert(text.replace("_", ""), int, "it")
    except SettingsError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return count


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.slowly_changing_regression",
        description="Slowly-changing regression (Dohare et al., Nature 632:768, 2024): error of online learners.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--methods", nargs="+", default=list(METHODS), metavar="NAME", help=f"methods to run, of {', '.join(METHODS)}"
    )
    parser.add_argument(
        "--seeds", type=number, default=20, help="how many independent learners a method (seeds 0, 1, ...)"
    )
    parser.add_argument(
        "--examples", type=number, default=1_000_000, help=f"examples each learner sees, a multiple of {BIN:,}"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/slowly_changing_regression"),
        metavar="DIR",
        help="folder for errors.csv and errors.png; files of these names in it are overwritten",
    )
    options = parser.parse_args(arguments)
    faults = [unknown("method", name, METHODS) for name in options.methods if name not in METHODS]
    if options.seeds < 2:
        faults.append(f"--seeds must be at least 2, or there is no confidence interval; got {options.seeds}")
    if options.examples < 2 * BIN or options.examples % BIN:
        faults.append(f"--examples must be a multiple of {BIN:,} and at least {2 * BIN:,}, got {options.examples:,}")
    if options.out.exists() and not options.out.is_dir():
        faults.append(f"--out must be a folder, but {options.out} is a file")
    if faults:
        raise BadInput(faults)
    return options


def run(options: argparse.Namespace, console: Console) -> None:
    """Train every method, writing what is done after each, and say what came out."""
    torch.set_num_threads(1)  # the tensors are tiny: more threads only wait for each other
    options.out.mkdir(parents=True, exist_ok=True)
    methods = list(dict.fromkeys(options.methods))
    errors = {}
    columns = (TextColumn("{task.description:<18}"), BarColumn(24), TextColumn("{task.fields[rate]:>7,.0f} examples/s"))
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as bar:
        for method in methods:
            started = time.monotonic()
            task = bar.add_task(method, total=options.examples, rate=0.0)

            def progress(done: int, task: int = task, started: float = started) -> None:
                bar.advance(task, done)  # type: ignore[arg-type]
                rate = bar.tasks[task].completed / (time.monotonic() - started)
                bar.update(task, rate=rate)  # type: ignore[arg-type]

            trained = train(method, range(options.seeds), options.examples, bin_size=BIN, progress=progress)
            errors[method] = trained.numpy()
            write_errors(options.out / "errors.csv", errors, BIN)
            took = time.monotonic() - started
            console.print(f"{method}: {took:.0f} s, {took / options.examples * 1e6:.0f} µs an example", highlight=False)
    figure = write_figure(options.out / "errors.png", errors, BIN)
    console.print(summary(errors, BIN))
    console.print(
        f"Figure: {figure}\nErrors of every seed: {options.out / 'errors.csv'}", soft_wrap=True, highlight=False
    )
    console.print("Next, the same method in an agent: python train.py plasticity=cbp", highlight=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the process's exit code."""
    console = Console()
    try:
        run(parse(arguments), console)
    except RunError as error:
        for line in error.lines:
            print(f"error: {line}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted: methods that had finished are in errors.csv of the --out folder", file=sys.stderr)
        return INTERRUPTED
    return DONE


if __name__ == "__main__":
    sys.exit(main())
