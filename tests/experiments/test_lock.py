"""The lock on a run's folder: what a second process is told, and that a killed one leaves nothing to clean up."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from experiments.errors import Busy
from experiments.lock import LOCK, RunLock
from tests.experiments.conftest import ROOT

HOLD = """
import sys
from pathlib import Path
from experiments.errors import Busy
from experiments.lock import RunLock
try:
    with RunLock(Path(sys.argv[1])):
        print("held", flush=True)
        sys.stdin.read()
except Busy as error:
    print(error.lines[0], flush=True)
    sys.exit(error.exit_code)
"""
Hold = Callable[[], "subprocess.Popen[str]"]


@pytest.fixture
def hold(tmp_path: Path) -> Iterator[Hold]:
    """Another process that takes the lock on `tmp_path/run` and keeps it until its stdin ends."""
    started = []

    def start() -> subprocess.Popen[str]:
        words = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
        process = subprocess.Popen(words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().rstrip()


def test_a_second_process_is_told_who_holds_it_and_gets_it_when_the_first_ends(tmp_path: Path, hold: Hold) -> None:
    first = hold()
    assert said(first) == "held"
    written = json.loads((tmp_path / "run" / LOCK).read_text())
    assert written["pid"] == first.pid
    with pytest.raises(Busy) as error, RunLock(tmp_path / "run"):
        raise AssertionError("two processes hold it")
    expected = (
        f"{tmp_path / 'run'} is being written by process {first.pid} on host {socket.gethostname()} "
        f"(started {written['started']}); wait for it, stop it, or choose another folder with run.dir=FOLDER"
    )
    assert error.value.lines == (expected,)
    second = hold()  # having failed, and closed the file, here has not freed it for others
    assert second.wait(60) == Busy.exit_code == 6
    assert said(second) == expected
    first.communicate("")
    assert first.returncode == 0
    assert list((tmp_path / "run").iterdir()) == []
    with RunLock(tmp_path / "run"):
        assert said(hold()).startswith(f"{tmp_path / 'run'} is being written by process {os.getpid()} on ")


def test_after_a_sigkill_there_is_nothing_to_clean_up(tmp_path: Path, hold: Hold) -> None:
    first = hold()
    assert said(first) == "held"
    first.send_signal(signal.SIGKILL)
    first.wait(60)
    (tmp_path / "run" / LOCK).write_text("x" * 500)  # of any length
    with RunLock(tmp_path / "run"):
        assert json.loads((tmp_path / "run" / LOCK).read_text())["pid"] == os.getpid()


def test_a_child_neither_inherits_the_lock_nor_frees_it(tmp_path: Path, hold: Hold) -> None:
    with RunLock(tmp_path / "run") as lock:
        assert lock._file is not None
        assert not os.get_inheritable(lock._file)
        subprocess.run(["true"], check=True, close_fds=False)
        assert said(hold()).endswith("run.dir=FOLDER")


def test_a_file_that_lost_its_name_is_not_mistaken_for_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hold: Hold
) -> None:
    """Its holder may end, and remove it, between our opening and our locking it; a third may have made it anew."""
    lockf, tries = fcntl.lockf, []

    def late(file: int, command: int) -> None:
        tries.append(file)
        if len(tries) == 1:
            (tmp_path / "run" / LOCK).unlink()
        lockf(file, command)

    monkeypatch.setattr("experiments.lock.fcntl.lockf", late)
    with RunLock(tmp_path / "run"):
        assert len(tries) == 2
        assert said(hold()).endswith("run.dir=FOLDER")


def test_a_holder_that_has_not_yet_said_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def held(file: int, command: int) -> None:
        raise OSError(errno.EACCES, "held")

    monkeypatch.setattr("experiments.lock.fcntl.lockf", held)
    with pytest.raises(Busy, match="run is being written by another process; wait for it"):
        RunLock(tmp_path / "run").__enter__()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP])
def test_a_file_system_without_locks_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(file: int, command: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("experiments.lock.fcntl.lockf", refuse)
    entered = False
    with pytest.warns(RuntimeWarning, match="run has no locks: nothing keeps another"), RunLock(tmp_path / "run"):
        entered = True
    assert entered
    assert list((tmp_path / "run").iterdir()) == []


def test_other_failures_are_not_taken_for_a_holder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(file: int, command: int) -> None:
        raise OSError(errno.EIO, "broken disk")

    monkeypatch.setattr("experiments.lock.fcntl.lockf", broken)
    with pytest.raises(OSError, match="broken disk"):
        RunLock(tmp_path / "run").__enter__()
