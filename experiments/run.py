"""One run from validated settings to a finished folder, or on from where it was left."""

from __future__ import annotations

import shlex
import signal
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from agents import PPO, SAC
from experiments import errors, resume
from experiments import folder as files
from experiments.announce import announce, tell
from experiments.build import build_model, device_faults
from experiments.environment import environment_faults, make_vec_env
from experiments.lock import RunLock
from experiments.resume import Found
from experiments.schema import Config
from experiments.session import Session
from experiments.stop import StopOnSignal
from experiments.threads import threads
from experiments.trackers import tracker_faults
from plasticity.blas import kernels
from plasticity.native import BLAS

ORIGIN = "weights"  # in manifests: the file that a run's first weights were imported from


@dataclass(frozen=True)
class Run:
    """A configuration and how it was asked for.

    choices: group -> names chosen; words: what was typed, to be typed again; command: the whole command line.
    """

    config: Config
    choices: Mapping[str, Sequence[str]]
    words: Sequence[str]
    command: Sequence[str]

    @property
    def folder(self) -> Path:
        """Where everything about this run is kept."""
        return files.run_folder(self.config, self.choices)

    @property
    def again(self) -> str:
        """The command that goes on with this run."""
        words = [word for word in self.words if not word.lstrip("+~").startswith(("run.overwrite=", "run.resume="))]
        return shlex.join(["python", "train.py", *words])


def train(run: Run, console: Console | None = None) -> int:
    """Train, write the run's folder, print the summary; the exit code. Raises `RunError` where that is not possible.

    A run that the folder holds already is gone on with, from its newest checkpoint.
    """
    console = console or Console()
    with occupied(run) as stop:
        found = resume.look(run.folder, run.config, circumstances(run.config))
        if found.complete:
            return _say_complete(run.folder, found, console)
        with assembled(run, found, stop, console) as session:
            return _learn(session, console)


@contextmanager
def occupied(run: Run) -> Iterator[StopOnSignal]:
    """Hold the run's folder, which is made if need be, and note signals.

    Nothing is made on disk before the settings, the environment and the folder are known to be usable.
    """
    folder, config = run.folder, run.config
    if faults := [*device_faults(config), *environment_faults(config), *tracker_faults(config.logging.trackers)]:
        raise errors.BadInput(faults)
    files.make(folder)
    torch.set_num_threads(threads(config))
    try:
        with RunLock(folder), StopOnSignal() as stop:
            yield stop
    finally:
        with suppress(OSError):
            folder.rmdir()  # where nothing came of it


@contextmanager
def assembled(
    run: Run,
    found: Found,
    stop: StopOnSignal,
    console: Console,
    prepare: Callable[[BaseAlgorithm], Mapping[str, Any]] | None = None,
) -> Iterator[Session]:
    """All of a run put together, and announced.

    prepare: done to the new agent before anything is written; what manifests are to say of it.
    """
    folder, config = run.folder, run.config
    env = make_vec_env(config)
    try:
        model = build(config, env)
        origin = _origin(found) if prepare is None else prepare(model)
        inexact = [*found.inexact, *_not_captured(env)]
        if inexact and config.run.checkpoint.require_exact:
            raise errors.BadInput(
                f"run.checkpoint.require_exact=true, and resuming would not be exact: {sentence}"
                for sentence in inexact
            )
        files.begin(folder, config, run.command, anew=found.checkpoint is None)
        announce(config, folder, model, console)
        tell([*found.notes, *_warnings(inexact)], console)
        facts = {**circumstances(config), **origin, "exact_resume": not inexact, "inexact": inexact}
        yield Session(run, model, console, stop, found.checkpoint, facts)
    finally:
        with suppress(EOFError, BrokenPipeError, ConnectionResetError):  # a worker that died has nothing left to close
            env.close()


def build(config: Config, env: VecEnv) -> PPO | SAC:
    """The agent of this configuration, untrained; raises `BadInput` if there can be none."""
    try:
        return build_model(config, env)
    except (ValueError, TypeError, AssertionError, RuntimeError, MemoryError) as error:
        sentence = textwrap.shorten(f"{type(error).__name__}: {error}", 240)
        raise errors.BadInput(f"this agent cannot be built for {config.env.id}: {sentence}") from error


def circumstances(config: Config) -> dict[str, Any]:
    """What the bits of a run depend on beside its configuration."""
    return {
        "versions": files.package_versions(resume.NUMERIC),
        "threads": torch.get_num_threads(),
        "products": f"{BLAS} {kernels()}",
        "vector": resume.vector(config),
        "device": config.device,
    }


def _learn(session: Session, console: Console) -> int:
    run, stop = session.run, session.stop
    try:
        finished = session.learn()
    except KeyboardInterrupt:
        return _ended_at_once(session, console)
    except Exception as error:
        raise session.failed(error) from error
    try:
        session.conclude("finished" if finished else "stopped")
    except OSError as error:
        raise errors.StorageFailure(f"the results could not be written: {error}", resume=run.again) from error
    except KeyboardInterrupt:
        return _ended_at_once(session, console)
    if finished:
        return errors.DONE
    assert stop.signal is not None
    name = signal.Signals(stop.signal).name
    tell([f"stopped by {name}, {session.saved}"], console)
    return 128 + stop.signal


def _ended_at_once(session: Session, console: Console) -> int:
    """A second signal came."""
    assert session.stop.signal is not None
    tell([f"ended at once, {session.saved}"], console)
    return 128 + session.stop.signal


def _say_complete(folder: Path, found: Found, console: Console) -> int:
    steps = files.result(folder)["steps"]
    tell([f"{folder} is already complete ({steps:,} steps); nothing to do.", *found.notes], console)
    tell([(folder / files.SUMMARY).read_text("utf-8").rstrip("\n")], console)
    return errors.DONE


def _not_captured(env: VecEnv) -> list[str]:
    """Why going on from a checkpoint would not be exact in these environments; found by trying it."""
    found: list[str] = env.env_method("self_test", indices=[0])[0]
    return [f"environment: {sentence}" for sentence in found]


def _warnings(inexact: Sequence[str]) -> list[str]:
    if not inexact:
        return []
    return [
        "warning: a resumed run will not equal an undisturbed one to the last bit:",
        *(f"  {sentence}" for sentence in inexact),
    ]


def _origin(found: Found) -> dict[str, Any]:
    """Where the run's first weights came from, if it was made by `experiments.import_weights`."""
    manifest = {} if found.checkpoint is None else found.checkpoint.manifest
    return {ORIGIN: manifest[ORIGIN]} if ORIGIN in manifest else {}
