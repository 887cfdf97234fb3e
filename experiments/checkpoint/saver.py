"""When a run is saved: at its start, every so often, before it stops, and at its end."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from agents.finite import non_finite
from experiments.checkpoint.pieces import Training, take
from experiments.checkpoint.store import Checkpoint, Store
from experiments.errors import NumericFailure, StorageFailure
from experiments.run_settings import CheckpointSettings

ATTEMPTS, PAUSE = 3, 1.0  # to write a checkpoint; seconds between two of them


class Saver:
    """Called between rollouts (`agents.PlasticAlgorithm.between_rollouts`): saves when it is due, and ends training.

    facts: what manifests say beside the step. stopping: whether the run is to end here; complete: whether all that
    belongs to the steps so far has been done, without which a checkpoint would not equal an undisturbed run's.
    saved: the newest checkpoint, also one that the run was resumed from.
    """

    def __init__(
        self,
        training: Training,
        store: Store,
        settings: CheckpointSettings,
        facts: Mapping[str, Any],
        stopping: Callable[[], bool],
        complete: Callable[[], bool],
        saved: Checkpoint | None = None,
    ):
        self.training, self.store, self.settings, self.facts = training, store, settings, facts
        self.stopping, self.complete, self.saved = stopping, complete, saved
        self._time = time.monotonic()

    def __call__(self) -> bool:
        """Whether training goes on."""
        stopping = self.stopping()
        if self.complete() and (stopping or self._due()):
            self.save()
        return not stopping

    def _due(self) -> bool:
        if self.saved is None:
            return True
        every, minutes = self.settings.every, self.settings.minutes
        return (every is not None and self.training.model.num_timesteps - self.saved.step >= every) or (
            minutes is not None and time.monotonic() - self._time >= 60 * minutes
        )

    def save(self) -> Checkpoint:
        """Save now, unless this step has been saved; raises `NumericFailure` rather than save what is not finite."""
        step = self.training.model.num_timesteps
        if self.saved is not None and self.saved.step == step:
            return self.saved
        if names := non_finite(self.training.model):
            raise NumericFailure(f"numbers are no longer finite after {step:,} steps, in {', '.join(names)}")
        error: OSError | None = None
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(PAUSE)
            try:
                tree = take(self.training)
                self.saved = self.store.write(step, tree, self.facts, tree["replay"]["segments"])
                self._time = time.monotonic()
                return self.saved
            except OSError as failure:
                error = failure
                self.store.clean()
        raise StorageFailure(
            f"no checkpoint of step {step:,} could be written in {ATTEMPTS} attempts: {error}"
        ) from error
