"""Shared by the tests of the command line: running it in process, and as a user would."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from experiments import compose
from experiments.command_line import main

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Outcome:
    """What a command line ended with."""

    code: int
    out: str
    err: str

    @property
    def errors(self) -> list[str]:
        """The lines on stderr."""
        return self.err.splitlines()


def run_train(words: Sequence[str], cwd: Path, timeout: float = 240) -> Outcome:
    """`python train.py WORDS` in `cwd`, one torch thread."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
    done = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *words],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


@pytest.fixture(autouse=True, scope="session")
def built_in_files_are_judged_once() -> Iterator[None]:
    """They do not change while tests run, and judging them takes longer than most tests. Users' folders always are."""
    judge, found = compose.faults_in_files, compose.faults_in_files((compose.CONFIGS,))

    def judged(directories: Iterable[Path]) -> list[str]:
        return found + judge(directory for directory in directories if directory != compose.CONFIGS)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compose, "faults_in_files", judged)
        yield


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Outcome]:
    """The command line in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> Outcome:
        code = main(words)
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return call
