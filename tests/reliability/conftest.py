"""Shared by the tests of what a run promises: the program, and a few runs that many tests take copies of."""

from __future__ import annotations

import fcntl
import json
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.experiments.conftest import built_in_files_are_judged_once  # noqa: F401
from tests.reliability.program import RUN, Outcome, Program, seconds_until_gone, steps
from tests.reliability.words import ANT, CARTPOLE, ROLLOUT, SAC, TOTAL


@pytest.fixture
def program(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Program]:
    """The program in an empty folder; what it was told is noted for the scorecard."""
    for name in ("home", "logs"):
        (tmp_path / name).mkdir()
    made = Program(tmp_path / "home", tmp_path / "logs")
    yield made
    made.end()
    shared = [value.commands for value in request.node.funcargs.values() if isinstance(value, Shared)]
    request.node.user_properties += [("command", command) for part in [*shared, made.commands] for command in part]


@dataclass(frozen=True)
class Shared:
    """A run that was made once and is looked at by several tests. facts: what was seen of it."""

    home: Path
    commands: list[str]
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Its run folder."""
        return self.home / RUN

    @property
    def outcome(self) -> Outcome:
        """What it ended with."""
        return Outcome(**self.facts["outcome"])

    def copy(self, program: Program) -> Path:
        """The run in the program's own folder, to be hurt."""
        return Path(shutil.copytree(self.folder, program.folder))


Make = Callable[[Program, dict[str, Any]], None]
Share = Callable[[str, Make], Shared]


@pytest.fixture(scope="session")
def share(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Share:
    """Makes a run where no process of this test session has yet."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if hasattr(request.config, "workerinput") else base

    def get(name: str, make: Make) -> Shared:
        home = base / f"shared-{name}"
        with (base / f"{name}.lock").open("w") as lock:
            fcntl.lockf(lock, fcntl.LOCK_EX)
            if not (home / "made.json").exists():
                shutil.rmtree(home, ignore_errors=True)
                (home / "logs").mkdir(parents=True)
                program, facts = Program(home, home / "logs"), {}
                try:
                    make(program, facts)
                finally:
                    program.end()
                (home / "made.json").write_text(json.dumps({"commands": program.commands, "facts": facts}))
        return Shared(home, **json.loads((home / "made.json").read_text()))

    return get


@pytest.fixture(scope="session")
def whole(share: Share) -> Shared:
    """PPO on a changing CartPole that nothing happens to."""

    def make(program: Program, facts: dict[str, Any]) -> None:
        facts["outcome"] = vars(program.main(*CARTPOLE, f"total_steps={TOTAL}"))

    return share("whole", make)


@pytest.fixture(scope="session")
def stopped(share: Share) -> Shared:
    """The same, ended by SIGTERM on its way; it has two checkpoints."""

    def make(program: Program, facts: dict[str, Any]) -> None:
        running = program.start(*CARTPOLE, f"total_steps={TOTAL}")
        running.until_step(2 * ROLLOUT)
        facts["before"] = max(steps(running.folder))
        running.send(signal.SIGTERM)
        facts["outcome"] = vars(running.wait())

    return share("stopped", make)


@pytest.fixture(scope="session")
def ant(share: Share) -> Shared:
    """PPO on Slippery Ant that nothing happens to."""

    def make(program: Program, facts: dict[str, Any]) -> None:
        facts["outcome"] = vars(program.main(*ANT, f"total_steps={TOTAL}"))

    return share("ant", make)


@pytest.fixture(scope="session")
def killed_ant(share: Share) -> Shared:
    """The same, killed at a random moment and gone on with."""

    def make(program: Program, facts: dict[str, Any]) -> None:
        program.start(*ANT, f"total_steps={TOTAL}").kill_after(3 * ROLLOUT)
        facts["saved"] = max(steps(program.folder))
        facts["outcome"] = vars(program.run(*ANT, f"total_steps={TOTAL}"))

    return share("killed_ant", make)


@pytest.fixture(scope="session")
def sac(share: Share) -> Shared:
    """SAC with workers and normalisation, that nothing happens to."""

    def make(program: Program, facts: dict[str, Any]) -> None:
        facts["outcome"] = vars(program.main(*SAC, "total_steps=500"))

    return share("sac", make)


@pytest.fixture(scope="session")
def killed_sac(share: Share) -> Shared:
    """The same, its main process killed at a random moment, and gone on with."""

    def make(program: Program, facts: dict[str, Any]) -> None:
        running = program.start(*SAC, "total_steps=500")
        running.until_step(150)
        family = running.workers()
        facts["family"] = [" ".join(process.cmdline()) for process in family]
        running.kill_after(150)
        facts["gone_after"] = seconds_until_gone(family)
        facts["saved"] = max(steps(program.folder))
        facts["outcome"] = vars(program.run(*SAC, "total_steps=500"))

    return share("killed_sac", make)
