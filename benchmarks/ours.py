"""Ours: runs as `python train.py` makes them, in turns of rollout and update; and parts of them by themselves."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

from benchmarks import settings
from benchmarks.contestant import Caller, Stopwatch, serve
from experiments.command_line import configuration
from experiments.command_line import main as train_py
from experiments.resume import Found
from experiments.run import Run, assembled, occupied
from experiments.session import Session
from plasticity import StepMetrics, UnitAdam


@contextmanager
def session(folder: Path, *words: str) -> Iterator[Session]:
    """A run as train.py makes it, ready to learn; it says nothing."""
    words = (*words, f"run.dir={folder}")
    config, choices = configuration(words, [])
    run = Run(config, choices, words, ["python", "train.py", *words])
    with occupied(run) as stop, assembled(run, Found(), stop, Console(quiet=True)) as one:
        yield one


def train(caller: Caller, words: Sequence[str], steps: int) -> None:
    """A run with all that belongs to one, so many environment steps a turn.

    Told are the seconds of the turn, and how many of them were the updates', the metrics' and those of writing logs.
    """
    metrics = Stopwatch()
    metrics.around(StepMetrics, "before_step", "after_step")
    with tempfile.TemporaryDirectory() as folder, session(Path(folder) / "run", *words) as one:
        _expect_by_hand(one)
        for watcher in (one.monitor, one.alarms):
            metrics.around(watcher, "on_step", "on_rollout_start", "on_rollout_end")
        Turns(one, caller, metrics, steps)
        one.learn()


class Turns:
    """Ends a turn, and waits for the next, between an update and the rollout after it."""

    def __init__(self, one: Session, caller: Caller, metrics: Stopwatch, steps: int):
        self._model, self._caller, self._steps = one.model, caller, steps
        self._first = getattr(one.model, "learning_starts", 0)  # steps of the first turn before anything is learned
        self._updates, self._logs, self._metrics = Stopwatch(), Stopwatch(), metrics
        self._updates.around(one.model, "train")
        self._logs.around(one.model.logger, "dump")
        self._began: float | None = None
        self._from = 0
        one.saver.stopping = self.over  # asked there, just before saving

    def over(self) -> bool:
        """Whether the last turn is over."""
        taken = self._model.num_timesteps - self._from
        if self._began is not None:
            if taken < self._steps + self._first:
                return False
            self._first = 0
            self._caller.tell(
                seconds=time.perf_counter() - self._began,
                steps=taken,
                update_seconds=self._updates.take(),
                metrics_seconds=self._metrics.take(),
                log_seconds=self._logs.take(),
            )
        if not self._caller.calls():
            return True
        for watch in (self._updates, self._metrics, self._logs):
            watch.take()
        self._from, self._began = self._model.num_timesteps, time.perf_counter()
        return False


def updates(caller: Caller, agents: Sequence[Sequence[str]]) -> None:
    """Two agents after their first rollout, which they learn from again and again; an update of each in a turn.

    agents: the words of either. Told are the seconds of both, the first of which is `first_seconds`.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        runs = [stack.enter_context(session(folder / str(place), *words)) for place, words in enumerate(agents)]
        models = [_about_to_update(one) for one in runs]
        turn = 0

        def play() -> dict[str, float]:
            nonlocal turn
            turn += 1
            spent = [0.0, 0.0]
            for place in (0, 1) if turn % 2 else (1, 0):
                start = time.perf_counter()
                models[place].train()
                spent[place] = time.perf_counter() - start
            return {"first_seconds": spent[0], "second_seconds": spent[1]}

        serve(caller, play)


class _EnoughError(Exception):
    """A rollout is complete."""


def _about_to_update(one: Session) -> Any:
    model: Any = one.model
    _expect_by_hand(one)

    def stop() -> None:
        raise _EnoughError

    model.train = stop
    with suppress(_EnoughError):
        one.learn()
    del model.train
    return model


def _expect_by_hand(one: Session) -> None:
    reason = one.model.why_stock()  # type: ignore[attr-defined]
    if reason is not None and one.run.config.agent.backend != "stock":
        raise RuntimeError(f"what shall be measured is not used: {reason}")


def whole_run(caller: Caller, words: Sequence[str]) -> None:
    """`python train.py` with these words from its beginning to its end, in one turn."""

    def play() -> dict[str, float]:
        with tempfile.TemporaryDirectory() as folder:
            if code := train_py([*words, f"run.dir={folder}/run"]):
                raise RuntimeError(f"train.py ended with {code}")
        return {}

    serve(caller, play)


def adam(caller: Caller, steps: int = 2000, chunk: int = 40) -> None:
    """UnitAdam and torch's fused Adam on the parameters of PPO's two networks, in turns of a few steps each.

    Units are reset as often as continual backprop replaces them, one in `chunk` steps a layer, so that UnitAdam counts
    steps by unit; resetting is part of its time.
    """
    torch.manual_seed(0)
    ours, theirs = _parameters(), _parameters()
    mine, peer = UnitAdam(ours, lr=1e-4, fused=True), torch.optim.Adam(theirs, lr=1e-4, fused=True)
    hidden = [parameter for parameter in ours if parameter.shape == (settings.WIDTH, settings.WIDTH)]
    spent, turn = [0.0, 0.0], 0

    def step(place: int) -> None:
        start = time.perf_counter()
        if place == 0:
            unit = torch.arange(settings.WIDTH) == turn % settings.WIDTH
            for parameter in hidden:
                mine.reset(parameter, rows=unit)
                mine.reset(parameter, columns=unit)
        for _ in range(chunk):
            (mine, peer)[place].step()
        spent[place] += time.perf_counter() - start

    def play() -> dict[str, float]:
        nonlocal turn
        spent[:] = 0.0, 0.0
        for _ in range(steps // chunk):
            turn += 1
            for place in (0, 1) if turn % 2 else (1, 0):
                step(place)
        return {"seconds": spent[0], "torch_seconds": spent[1], "steps": steps}

    mine.step()
    serve(caller, play)


def _parameters() -> list[nn.Parameter]:
    widths = [105, *[settings.WIDTH] * settings.DEPTH]
    found: list[nn.Parameter] = [nn.Parameter(torch.zeros(8))]
    for outputs in (8, 1):
        for inputs, units in zip(widths, [*widths[1:], outputs], strict=True):
            found += nn.Linear(inputs, units).parameters()
    for parameter in found:
        parameter.grad = torch.randn_like(parameter)
    return found


def batched(caller: Caller, turns: int) -> None:
    """BatchedVecEnv against DummyVecEnv, both as a run has them; see benchmarks/batched_environments.py."""
    from benchmarks.batched_environments import measure

    serve(caller, lambda: measure("SlipperyAnt-v5", settings.COPIES, turns=turns))


def wrapper(caller: Caller, repeats: int) -> None:
    """A step of Ant with the wrapper and without; see benchmarks/wrapper_cost.py."""
    from benchmarks import wrapper_cost

    wrapper_cost.REPEATS = repeats
    serve(caller, lambda: wrapper_cost.measure(wrapper_cost.CASES["one change"]))
