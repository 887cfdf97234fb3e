"""What a run can end with: exit codes, and the exceptions that carry them to the command line."""

from __future__ import annotations

from collections.abc import Iterable

DONE = 0
BUG = 1  # an exception nobody planned for; its traceback is in the run's error.log
BAD_INPUT = 2
NUMERIC_FAILURE = 3
ENVIRONMENT_FAILURE = 4
NO_CHECKPOINT = 5
BUSY = 6
STORAGE_FAILURE = 7
INTERRUPTED = 130


class RunError(Exception):
    """A failure a user can act on: one sentence each in `lines`, and the process's exit code.

    resume: the command that goes on from the newest checkpoint, where there is one worth going on from.
    """

    exit_code = BUG

    def __init__(self, lines: str | Iterable[str], resume: str | None = None):
        self.lines = (lines,) if isinstance(lines, str) else tuple(lines)
        self.resume = resume
        super().__init__("\n".join(self.lines))


class BadInput(RunError):
    """A configuration or command line that cannot be used; every fault found is one of `lines`."""

    exit_code = BAD_INPUT


class WorkersLost(RunError):
    """Nobody is left who works on a sweep or a search."""

    def __init__(self, resume: str):
        super().__init__("all workers were lost, or the scheduler; runs keep what they have saved", resume)


class NumericFailure(RunError):
    """A network whose parameters are no longer finite."""

    exit_code = NUMERIC_FAILURE


class EnvironmentFailure(RunError):
    """An environment that raised while it was being stepped or reset."""

    exit_code = ENVIRONMENT_FAILURE


class NoCheckpoint(RunError):
    """A run that cannot be resumed: its checkpoints are damaged, or made by versions that must not be mixed."""

    exit_code = NO_CHECKPOINT


class Busy(RunError):
    """A run folder that another process is writing to."""

    exit_code = BUSY


class StorageFailure(RunError):
    """A checkpoint that could not be written, such as to a full disk."""

    exit_code = STORAGE_FAILURE
