"""Trackio: local, in TRACKIO_DIR, unless TRACKIO_SPACE_ID or TRACKIO_SERVER_URL say otherwise."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from experiments.trackers.tracker import PROJECT, About, unless_set


class Trackio:
    """A run of Trackio, which knows runs by their names, and no status."""

    def __init__(self, about: About):
        self.about = about
        self._run: Any = None

    def begin(self, last: str | None) -> tuple[str, str]:
        """What it prints of itself is left out: a bar is drawn on the terminal."""
        unless_set(GRADIO_ANALYTICS_ENABLED="False", HF_HUB_DISABLE_TELEMETRY="1")
        import trackio

        about = self.about
        with redirect_stdout(io.StringIO()):
            self._run = trackio.init(
                project=PROJECT,
                name=about.folder.name,
                group=about.group,
                config={**about.config, "tags": [*about.tags], "config_hash": about.version},
                resume="never" if last is None else "allow",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )
        elsewhere = os.environ.get("TRACKIO_SPACE_ID") or os.environ.get("TRACKIO_SERVER_URL")
        return str(self._run.id), elsewhere or f"to look at it: trackio show --project {PROJECT}"

    def log(self, values: Mapping[str, float], step: int) -> None:
        """A row."""
        self._run.log(dict(values), step=step)

    def picture(self, path: Path, step: int) -> None:
        """As an artifact."""
        with redirect_stdout(io.StringIO()):
            self._run.log_artifact(str(path), name=f"{self.about.folder.name}-summary", type="picture")

    def end(self, status: str) -> None:
        """All that waits is written."""
        import trackio

        with redirect_stdout(io.StringIO()):
            trackio.finish()


def make(about: About) -> Trackio:
    """The tracker."""
    return Trackio(about)
