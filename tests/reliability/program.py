"""The program as a user starts it: run to its end, hurt on its way, and looked at afterwards."""

from __future__ import annotations

import os
import random
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import chdir, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import psutil
import torch

from experiments import import_weights
from experiments.command_line import main

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 300.0  # seconds; a step may take ten times as long here as on an idle machine
RUN = "run"  # the run folder of all tests, in a working directory of each test's own


@dataclass(frozen=True)
class Outcome:
    """What a command ended with. code: minus the signal where one killed it; seconds: that it took."""

    code: int
    out: str
    err: str
    seconds: float = 0.0

    @property
    def errors(self) -> list[str]:
        """The lines on stderr."""
        return self.err.splitlines()


class Running:
    """`python train.py` in a process group of its own."""

    def __init__(self, words: Sequence[str], cwd: Path, logs: Path, note: Callable[[str], None], script: Sequence[str]):
        self.folder, self._note, self._began = cwd / RUN, note, time.monotonic()
        self._logs = [logs.with_suffix(suffix) for suffix in (".out", ".err")]
        with self._logs[0].open("wb") as out, self._logs[1].open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, *script, *words],
                cwd=cwd,
                env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200", "PYTHONPATH": str(ROOT)},
                stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True,
            )  # fmt: skip
        self.pid = self.process.pid

    def wait(self, timeout: float = PATIENCE) -> Outcome:
        """Until it ends by itself."""
        code = self.process.wait(timeout)
        out, err = (path.read_text("utf-8") for path in self._logs)
        return Outcome(code, out, err, time.monotonic() - self._began)

    def send(self, number: signal.Signals, *, group: bool = False) -> None:
        """A signal to it, or to all of its process group as Ctrl-C in a terminal."""
        assert self.process.poll() is None, f"it ended before {number.name}: {self.wait()}"
        self._note(f"kill -s {number.name.removeprefix('SIG')} {'-' * group}PID")
        (os.killpg if group else os.kill)(self.pid, number)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.send(signal.SIGKILL)
        assert self.process.wait(PATIENCE) == -signal.SIGKILL

    def until(self, there: Callable[[], bool], pause: float = 0.002) -> None:
        """Wait until something is the case, which must be before it ends."""
        end = time.monotonic() + PATIENCE
        while not there():
            assert self.process.poll() is None, f"it ended before that: {self.wait()}"
            assert time.monotonic() < end, "that took too long"
            time.sleep(pause)

    def until_step(self, step: int) -> None:
        """Wait for a checkpoint of this step or a later one."""
        self.until(lambda: max(steps(self.folder), default=-1) >= step)

    def kill_after(self, step: int, within: float = 0.2) -> None:
        """SIGKILL at a random moment after this step has been saved; within: seconds."""
        self.until_step(step)
        time.sleep(random.uniform(0, within))
        self.kill()

    def kill_in_save(self, step: int) -> None:
        """SIGKILL while a checkpoint after this step is being written, as far as that can be seen from outside."""
        self.until_step(step)
        checkpoints = self.folder / "checkpoints"
        self.until(lambda: any(name.endswith(".unfinished") for name in os.listdir(checkpoints)), pause=0)
        self.kill()

    def workers(self) -> list[psutil.Process]:
        """All processes that it started, and those that they did."""
        return psutil.Process(self.pid).children(recursive=True)

    def end(self) -> None:
        """Whatever it does: no process of its group is left."""
        if self.process.poll() is None:
            with suppress(psutil.NoSuchProcess):
                for child in self.workers():
                    with suppress(psutil.NoSuchProcess):
                        child.kill()
            self.process.kill()
            self.process.wait()


class Program:
    """Starts the program in `cwd` and remembers the commands."""

    def __init__(self, cwd: Path, logs: Path):
        self.cwd, self.folder = cwd, cwd / RUN
        self.commands: list[str] = []
        self._logs, self._started = logs, []  # type: ignore[var-annotated]

    def start(self, *words: str, full_disk: str | None = None) -> Running:
        """A process. full_disk: part of a path; writes to such files find the disk full."""
        fault = [] if full_disk is None else [str(ROOT / "tests/reliability/faults.py"), full_disk]
        self._say(words, full_disk)
        logs = self._logs / f"{len(self._started)}"
        running = Running(words, self.cwd, logs, self.commands.append, fault or [str(ROOT / "train.py")])
        self._started.append(running)
        return running

    def run(self, *words: str, full_disk: str | None = None) -> Outcome:
        """A process, to its end."""
        return self.start(*words, full_disk=full_disk).wait()

    def main(self, *words: str) -> Outcome:
        """The same in this process, which saves seconds of imports."""
        self._say(words)
        return self._here(main, words)

    def import_weights(self, *words: str) -> Outcome:
        """`python -m experiments.import_weights`, in this process."""
        self.commands.append(shlex.join(["python", "-m", "experiments.import_weights", *words]))
        return self._here(import_weights.main, words)

    def _here(self, command: Callable[[Sequence[str]], int], words: Sequence[str]) -> Outcome:
        began, threads, out, err = time.monotonic(), torch.get_num_threads(), StringIO(), StringIO()
        try:
            with chdir(self.cwd), redirect_stdout(out), redirect_stderr(err):
                code = command(words)
        finally:
            torch.set_num_threads(threads)
        return Outcome(code, out.getvalue(), err.getvalue(), time.monotonic() - began)

    def did(self, what: str) -> None:
        """Note what was done to the run by other means than a command."""
        self.commands.append(f"# {what}")

    def end(self) -> None:
        """End all that is left."""
        for running in self._started:
            running.end()

    def _say(self, words: Sequence[str], full_disk: str | None = None) -> None:
        command = shlex.join(["python", "train.py", *words])
        self.commands.append(command if full_disk is None else f"{command}  # disk full for {full_disk}")


def steps(folder: Path) -> list[int]:
    """Of the checkpoints of a run folder, damaged or not, in order."""
    path = folder / "checkpoints"
    return sorted(int(name) for name in os.listdir(path) if name.isdigit()) if path.is_dir() else []


def alive(processes: Sequence[psutil.Process]) -> list[psutil.Process]:
    """Those that have not ended."""
    return [process for process in processes if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


def seconds_until_gone(processes: Sequence[psutil.Process], limit: float = 60.0) -> float:
    """How long it takes until none of them lives; at most `limit`."""
    began = time.monotonic()
    while time.monotonic() - began < limit:
        with suppress(psutil.NoSuchProcess):
            if not alive(processes):
                break
        time.sleep(0.01)
    return time.monotonic() - began
