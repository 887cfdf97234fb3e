"""MLflow: the server or file that MLFLOW_TRACKING_URI names, else `mlflow.db` beside the run's folder."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from experiments.tensorboard import flat
from experiments.trackers.tracker import PROJECT, About, unless_set

METRICS, PARAMETERS = 1000, 100  # at once, at most
LONGEST = 500  # characters of a parameter that every server takes
STATUS = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
Item = TypeVar("Item")


class MLflow:
    """A run of MLflow. The client is used, so that nothing that is global to MLflow is touched."""

    def __init__(self, about: About):
        self.about = about
        self._client: Any = None
        self._id = ""

    def begin(self, last: str | None) -> tuple[str, str]:
        """Parameters are sent once: MLflow refuses to change them."""
        unless_set(MLFLOW_DISABLE_TELEMETRY="true", MLFLOW_LOGGING_LEVEL="WARNING")
        from mlflow.entities import Param
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient

        root = self.about.folder.parent.resolve()
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        own = f"sqlite:///{root / 'mlflow.db'}"
        self._client = MlflowClient(tracking_uri=uri or own)
        if last is not None:
            try:
                self._client.update_run(last, status="RUNNING")
            except MlflowException:
                last = None  # it is not known there
        if last is None:
            experiment = self._experiment(None if uri else (root / "mlartifacts").as_uri())
            run = self._client.create_run(experiment, run_name=self.about.folder.name)
            last = str(run.info.run_id)
            settings = [(key, value) for key, value in flat(self.about.config) if key != "total_steps"]  # may grow
            for some in _portions([Param(key, str(value)[:LONGEST]) for key, value in settings], PARAMETERS):
                self._client.log_batch(last, params=some)
        self._id = last
        self._tag()
        return last, uri or f"to look at it: mlflow ui --backend-store-uri {shlex.quote(own)}"

    def log(self, values: Mapping[str, float], step: int) -> None:
        """A row."""
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        for some in _portions([Metric(key, value, now, step) for key, value in values.items()], METRICS):
            self._client.log_batch(self._id, metrics=some)

    def picture(self, path: Path, step: int) -> None:
        """As an artifact."""
        self._client.log_artifact(self._id, str(path))

    def end(self, status: str) -> None:
        """With the status under MLflow's name for it."""
        self._client.set_terminated(self._id, status=STATUS[status])

    def _experiment(self, artifacts: str | None) -> str:
        from mlflow.exceptions import MlflowException

        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or PROJECT
        for last_try in (False, True):
            found = self._client.get_experiment_by_name(name)
            if found is not None:
                return str(found.experiment_id)
            try:
                return str(self._client.create_experiment(name, artifact_location=artifacts))
            except MlflowException:  # another run of a sweep was quicker
                if last_try:
                    raise
        raise AssertionError

    def _tag(self) -> None:
        from mlflow.entities import RunTag

        about = self.about
        tags = {"group": about.group, "tags": ", ".join(about.tags), "config_hash": about.version}
        tags["total_steps"] = str(about.config.get("total_steps", ""))
        self._client.log_batch(self._id, tags=[RunTag(name, value) for name, value in tags.items()])


def make(about: About) -> MLflow:
    """The tracker."""
    return MLflow(about)


def _portions(items: Sequence[Item], size: int) -> Iterator[list[Item]]:
    rest = iter(items)
    while some := list(islice(rest, size)):
        yield some
