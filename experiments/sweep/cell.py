"""What a worker does for a cell: `train.py` in a process of its own, so that a crash takes nothing else along.

The process goes when its worker does. It holds one end of a pipe whose other end only the worker has; where the worker
dies, the pipe ends, and the run saves itself and stops, as after SIGTERM. Little is imported here, as workers do.
"""

from __future__ import annotations

import collections
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any

from experiments.errors import BUSY, DONE
from experiments.lock import holder

PROJECT = Path(__file__).resolve().parents[2]
LOOK = 0.5  # seconds between looks at whether a cell is still wanted
PATIENCE = 60.0  # seconds that a run without its worker gets to save itself
KEPT = 30  # lines of what a run said on stderr
STOPPED = (128 + signal.SIGINT, 128 + signal.SIGTERM)  # exit codes of a run that was asked to stop


@dataclass(frozen=True)
class Task:
    """A cell as it is sent to a worker. cwd: where its command is to be run; folder: the run's, absolute."""

    words: tuple[str, ...]
    cwd: str
    folder: str


@dataclass(frozen=True)
class Outcome:
    """How a cell's process ended. code: its exit code; lines: what it said last where it failed."""

    code: int
    lines: tuple[str, ...] = ()

    @property
    def done(self) -> bool:
        """Whether the run is complete."""
        return self.code == DONE

    @property
    def busy(self) -> bool:
        """Whether another process has the run's folder."""
        return self.code == BUSY

    @property
    def stopped(self) -> bool:
        """Whether it was asked to stop, and saved."""
        return self.code in STOPPED or -self.code in (signal.SIGINT, signal.SIGTERM)


def work(number: int, task: Task, topic: str) -> Outcome:
    """Run a cell on a Dask worker. topic: of the events that say it has begun, and how it ended once nobody waits."""
    from distributed import Status, get_worker

    worker = get_worker()
    key = worker.get_current_task()

    def wanted() -> bool:
        state = worker.state.tasks.get(key)  # "cancelled" also where the client is gone
        there = worker.status in (Status.running, Status.paused)
        return there and state is not None and state.state in ("executing", "long-running")

    def tell(**more: Any) -> None:
        worker.log_event(topic, {"cell": number, "worker": worker.address, "host": socket.gethostname(), **more})

    tell()
    outcome = run(task, wanted)
    tell(ended=asdict(outcome))
    return outcome


def run(task: Task, wanted: Callable[[], bool]) -> Outcome:
    """Run a cell to its end, or until it is no longer wanted."""
    if holder(Path(task.folder)) is not None:
        return Outcome(BUSY)
    words = [sys.executable, "-P", "-m", "experiments.sweep.cell", *task.words]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(PROJECT), *_python_path()]), "COLUMNS": "120"}
    said: collections.deque[str] = collections.deque(maxlen=KEPT)
    with subprocess.Popen(
        words,
        cwd=task.cwd,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,  # Ctrl-C in a terminal reaches the sweep alone
    ) as process:
        assert process.stderr is not None
        reader = threading.Thread(target=_keep, args=(process.stderr, said), daemon=True)
        reader.start()
        asked = False
        while process.poll() is None:
            if not asked and not wanted():
                process.terminate()
                asked = True
            try:
                process.wait(LOOK)
            except subprocess.TimeoutExpired:
                continue
        reader.join(LOOK)
    outcome = Outcome(process.returncode)
    if outcome.done or outcome.busy or outcome.stopped:
        return outcome
    return replace(outcome, lines=tuple(_explained(process.returncode, list(said))))


def _python_path() -> list[str]:
    return [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]


def _keep(stream: IO[str], said: collections.deque[str]) -> None:
    for line in stream:
        said.append(line.rstrip())


def _explained(code: int, said: Sequence[str]) -> list[str]:
    """Why a run failed: its own sentences, or else how it was ended and the last that it said."""
    own = [line.removeprefix("error: ") for line in said if line.startswith("error: ")]
    if own:
        return own
    last = [line for line in said if line.strip()][-1:]
    if code >= 0:
        return last or [f"ended with exit code {code}"]
    try:
        name = signal.Signals(-code).name
    except ValueError:  # a real-time signal
        name = f"signal {-code}"
    memory = " (which is also what the system does to a process when memory runs out)" if name == "SIGKILL" else ""
    return [f"its process was killed by {name}{memory}", *last]


def _stop_without_worker() -> None:
    """Wait for the end of the pipe that the worker holds; then stop, at the latest after `PATIENCE`."""
    while os.read(sys.stdin.fileno(), 1):  # not sys.stdin: a thread inside it would abort the interpreter's end
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(PATIENCE)
    os._exit(128 + signal.SIGTERM)


def main() -> int:
    """`train.py` for a worker; the exit code."""
    threading.Thread(target=_stop_without_worker, daemon=True).start()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])  # which workers on this machine have blocked
    from experiments.command_line import main as train

    return train(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
