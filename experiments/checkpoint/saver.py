"""When a run is saved: at its start, every so often, before it stops, and at its end."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from agents.finite import non_finite
from experiments.checkpoint.codec import encode
from experiments.checkpoint.pieces import Training, take
from experiments.checkpoint.store import Checkpoint, Digest, Store
from experiments.errors import NumericFailure, StorageFailure
from experiments.growing import sync
from experiments.run_settings import CheckpointSettings

ATTEMPTS, PAUSE = 3, 1.0  # to write a checkpoint; seconds between two of them
T = TypeVar("T")


class Saver:
    """Called between rollouts (`agents.PlasticAlgorithm.between_rollouts`): saves when it is due, and ends training.

    Training is held up while the run is taken and made into bytes, which nothing can change any more. These are written
    by a thread while it goes on, one checkpoint at a time: disks can take any time. What is to be on the disk before
    anything else happens, the first checkpoint and the last, is waited for.

    facts: what manifests say beside the step. stopping: whether the run is to end here; complete: whether all that
    belongs to the steps so far has been done, without which a checkpoint would not equal an undisturbed run's; growing:
    the files that a checkpoint says how far they go, which are on the disk before it is.
    saved: the newest checkpoint that is known to be on the disk, also one that the run was resumed from.
    """

    def __init__(
        self,
        training: Training,
        store: Store,
        settings: CheckpointSettings,
        facts: Mapping[str, Any],
        stopping: Callable[[], bool],
        complete: Callable[[], bool],
        growing: Callable[[], list[Path]],
        saved: Checkpoint | None = None,
    ):
        self.training, self.store, self.settings, self.facts = training, store, settings, facts
        self.stopping, self.complete, self.growing, self.saved = stopping, complete, growing, saved
        self._step = None if saved is None else saved.step  # of the newest, written or being written
        self._time = time.monotonic()
        self._thread = ThreadPoolExecutor(1, "checkpoints")
        self._writing: Future[Checkpoint] | None = None

    def __call__(self) -> bool:
        """Whether training goes on."""
        stopping = self.stopping()
        if self.complete() and (stopping or self._due()):
            self.begin()
        if stopping or self.saved is None or (self._writing is not None and self._writing.done()):
            self.wait()
        return not stopping

    def _due(self) -> bool:
        if self._step is None:
            return True
        every, minutes = self.settings.every, self.settings.minutes
        return (every is not None and self.training.model.num_timesteps - self._step >= every) or (
            minutes is not None and time.monotonic() - self._time >= 60 * minutes
        )

    def save(self) -> Checkpoint | None:
        """Save now, and wait until it is on the disk; raises what `begin` and `wait` do."""
        self.begin()
        return self.wait()

    def begin(self) -> None:
        """Save the run as it is now, unless this step has been saved, and leave the writing to the thread.

        Raises `NumericFailure` rather than save what is not finite, and `StorageFailure` as `wait` does, of the
        checkpoint before or where a replay buffer cannot be written.
        """
        self.wait()  # also because what it lets go of must not be what is taken now
        step = self.training.model.num_timesteps
        if self._step == step:
            return
        if names := non_finite(self.training.model):
            raise NumericFailure(f"numbers are no longer finite after {step:,} steps, in {', '.join(names)}")
        tree = self._attempts(step, partial(take, self.training))
        contents, segments = encode(tree), tree["replay"]["segments"]
        write = partial(self._write, self.growing(), step, contents, segments)
        self._writing = self._thread.submit(self._attempts, step, write)
        self._step, self._time = step, time.monotonic()

    def wait(self) -> Checkpoint | None:
        """Until what was begun is on the disk; the newest. Raises `StorageFailure` where it could not be written."""
        if self._writing is not None:
            self.saved = self._writing.result()
            self._writing = None
        return self.saved

    def close(self) -> None:
        """Wait, and say nothing of a failure: it has been raised, or something else has ended the run."""
        with suppress(StorageFailure):
            self.wait()
        self._thread.shutdown()

    def _write(
        self, growing: list[Path], step: int, contents: tuple[bytes, bytes], segments: Mapping[str, Digest]
    ) -> Checkpoint:
        sync(growing)
        return self.store.write_encoded(step, contents, self.facts, segments)

    def _attempts(self, step: int, write: Callable[[], T]) -> T:
        error: OSError | None = None
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(PAUSE)
            try:
                return write()
            except OSError as failure:
                error = failure
                self.store.clean()
        raise StorageFailure(
            f"no checkpoint of step {step:,} could be written in {ATTEMPTS} attempts: {error}"
        ) from error
