"""Runs in this process, killed and resumed at will: what they are put together from is what `train.py` uses."""

from __future__ import annotations

import copy
import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, reduce
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from rich.console import Console
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from experiments import folder as files
from experiments import resume
from experiments.compose import GROUPS, Composed, compose
from experiments.environment import make_vec_env
from experiments.run import Run, build, circumstances
from experiments.schema import Config, validate
from experiments.session import Session
from experiments.stop import StopOnSignal

NOT_KEPT = ("time/fps", "time/time_elapsed", "time/iterations")  # SB3 counts these from each call of learn


class Killed(BaseException):
    """In place of the end of the process."""


class Ended:
    """A run after its end.

    tree: its last checkpoint; buffer: the replay buffer, or the last rollout; tables: what its files hold; said:
    numbers that stand in messages or in the result.
    """

    def __init__(self, session: Session, folder: Path):
        saved = session.saver.saved
        assert saved is not None
        self.tree: dict[str, Any] = saved.read()
        del self.tree["files"]["events"], self.tree["replay"]["segments"]  # named after when they were begun
        model: Any = session.model
        rows = model.replay_buffer if isinstance(model, OffPolicyAlgorithm) else model.rollout_buffer
        self.buffer = {name: value for name, value in vars(rows).items() if isinstance(value, np.ndarray | int)}
        self.tables = _tables(folder)
        self.said = {name: self.tree["parts"][name] for name in ("guard", "gradients", "losses")}
        self.policy = model.policy

    def everything(self) -> dict[str, Any]:
        """All of it, to the last bit."""
        return {"tree": self.tree, "buffer": self.buffer, "tables": self.tables}

    def visible(self) -> dict[str, Any]:
        """What a user can see of it."""
        return {"weights": self.tree["policy"], "tables": self.tables, "said": self.said}


@dataclass(frozen=True)
class Setup:
    """What to run: words of a command line, and methods in place of those that they choose; later ones win."""

    words: tuple[str, ...]
    methods: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def and_(self, *words: str, **methods: Mapping[str, Any]) -> Setup:
        """The same with more."""
        return Setup((*self.words, *words), {**self.methods, **methods})

    @property
    def composed(self) -> Composed:
        """The choices of groups, composed; that takes as long as a run, so single settings are put in by `config`."""
        return composed(tuple(word for word in self.words if word.partition("=")[0] in GROUPS))

    def config(self, folder: Path, every: int | None) -> Config:
        """every: environment steps between checkpoints; None: only at the start and the end."""
        tree = copy.deepcopy(self.composed.tree)
        for word in self.words:
            key, _, value = word.partition("=")
            if key not in GROUPS:
                *sections, name = key.split(".")
                reduce(dict.__getitem__, sections, tree)[name] = yaml.safe_load(value)
        tree["run"] |= {"dir": str(folder), "checkpoint": {"minutes": None, "every": every}}
        return validate({**tree, "plasticity": self.methods})


@cache
def composed(words: tuple[str, ...]) -> Composed:
    """What a command line chooses."""
    found = compose(words)
    assert not found.errors
    return found


COMMON = ("experiment=none", "agent.net_arch=[8,8]", "agent.activation=tanh", "logging.tensorboard=false")
PPO = Setup(
    (
        *COMMON,
        *("env=ns_cartpole", "env.n_envs=2", "env.kwargs.period=40", "seed=3", "total_steps=160"),
        *("agent.n_steps=16", "agent.batch_size=16", "agent.n_epochs=2", "agent.learning_rate=0.01"),
    )
)
SAC = Setup(
    (
        *COMMON,
        *("agent=sac", "env=ns_pendulum", "env.kwargs.period=20", "env.boundary=truncate", "seed=3", "total_steps=64"),
        *("agent.learning_starts=16", "agent.batch_size=8", "agent.buffer_size=40", "logging.monitor_every=8"),
    )
)


def begin(setup: Setup, folder: Path, every: int | None = None) -> Session:
    """A run that stands before its first step, or where its newest checkpoint was taken."""
    config = setup.config(folder, every)
    facts = circumstances(config)
    found = resume.look(folder, config, facts)
    env = make_vec_env(config)
    model = build(config, env)
    inexact = env.env_method("self_test", indices=[0])[0]
    folder.mkdir(exist_ok=True)
    files.begin(folder, config, setup.words, anew=found.checkpoint is None)
    run = Run(config, setup.composed.choices, setup.words, setup.words)
    facts |= {"exact_resume": not inexact, "inexact": inexact}
    return Session(run, model, Console(quiet=True), StopOnSignal(), found.checkpoint, facts)


def finish(session: Session, folder: Path) -> Ended:
    """Train to the end."""
    try:
        assert session.learn()
        return Ended(session, folder)
    finally:
        session.model.env.close()


def uninterrupted(setup: Setup, folder: Path) -> Ended:
    """A run from beginning to end that saves nothing on its way."""
    return finish(begin(setup, folder), folder)


def killed(setup: Setup, folder: Path, saved: int, at: int) -> None:
    """Run until step `at` and no further, with checkpoints at steps 0 and `saved`."""
    session = begin(setup, folder, every=saved or None)

    def stopping() -> bool:
        if session.model.num_timesteps >= at:
            raise Killed
        return False

    session.saver.stopping = stopping
    try:
        session.learn()
    except Killed:
        return
    finally:
        session.model.env.close()
    raise AssertionError(f"the run ended before step {at}")


def resumed(setup: Setup, folder: Path, step: int) -> Ended:
    """A killed run from its checkpoint of this step to its end."""
    session = begin(setup, folder)
    assert session.saver.saved.step == session.model.num_timesteps == step
    return finish(session, folder)


def differences(one: Any, other: Any, path: str = "") -> Iterator[str]:
    """The paths of all that differs in type or in any bit; seconds that episodes took aside."""
    if type(one) is not type(other):
        yield f"{path}: {type(one).__name__} and {type(other).__name__}"
    elif isinstance(one, Mapping):
        if list(one) != list(other):
            yield f"{path}: keys {list(one)} and {list(other)}"
        for key in one.keys() & other.keys():
            if key == "t" and {"r", "l"} <= one.keys():
                continue
            yield from differences(one[key], other[key], f"{path}/{key}")
    elif isinstance(one, list | tuple) or hasattr(one, "maxlen"):
        if len(one) != len(other):
            yield f"{path}: {len(one)} and {len(other)} items"
        for place, (a, b) in enumerate(zip(one, other, strict=False)):
            yield from differences(a, b, f"{path}[{place}]")
    elif isinstance(one, torch.Tensor):
        yield from differences(one.numpy(), other.numpy(), path)
    elif isinstance(one, np.ndarray | np.generic | float):
        a, b = np.asarray(one), np.asarray(other)
        if (a.dtype, a.shape, a.tobytes()) != (b.dtype, b.shape, b.tobytes()):
            yield f"{path}: {one} and {other}"
    elif one != other:
        yield f"{path}: {one!r} and {other!r}"


def _tables(folder: Path) -> dict[str, Any]:
    with (folder / files.PROGRESS).open(newline="") as file:
        rows = [{k: v for k, v in row.items() if k not in NOT_KEPT} for row in csv.DictReader(file)]
    alarms = folder / files.ALARMS
    return {
        "progress": rows,
        "episodes": (folder / files.EPISODES).read_text().splitlines(),
        "alarms": alarms.read_text() if alarms.exists() else "",
        "events": _events(folder) if list(folder.glob("events.*")) else {},
    }


def _events(folder: Path) -> dict[str, Any]:
    """tag -> (step, value) of scalars, (step, buckets) of histograms."""
    found = EventAccumulator(str(folder), size_guidance={"scalars": 0, "histograms": 0})
    found.Reload()
    tags = found.Tags()
    scalars = {tag: [(e.step, e.value) for e in found.Scalars(tag)] for tag in tags["scalars"] if tag not in NOT_KEPT}
    histograms = {
        tag: [(e.step, list(e.histogram_value.bucket), e.histogram_value.sum) for e in found.Histograms(tag)]
        for tag in tags["histograms"]
    }
    return {"scalars": scalars, "histograms": histograms}
