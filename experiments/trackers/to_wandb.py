"""Weights & Biases. Everything else it can be told is in its own environment variables and settings files.

WANDB_MODE chooses online or offline; without a login and without a choice, a run is kept offline, in its own folder.
"""

from __future__ import annotations

import netrc
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from experiments.trackers.tracker import PROJECT, About, unless_set


class WeightsAndBiases:
    """A run of W&B."""

    def __init__(self, about: About):
        self.about = about
        self._run: Any = None

    def begin(self, last: str | None) -> tuple[str, str]:
        """Online if there is a login, else offline."""
        unless_set(WANDB_ERROR_REPORTING="false", WANDB_SILENT="true")
        import wandb

        about = self.about
        chosen: dict[str, Any] = {}
        if not os.environ.get("WANDB_MODE") and not _logged_in():
            chosen["mode"] = "offline"  # it would ask for a key, and wait
        if not os.environ.get("WANDB_PROJECT"):
            chosen["project"] = PROJECT
        if not os.environ.get("WANDB_DIR"):
            chosen["dir"] = str(about.folder)
        self._run = wandb.init(
            id=last or secrets.token_hex(4),
            resume="allow",
            name=about.folder.name,
            group=about.group,
            tags=[*about.tags],
            config={**about.config, "config_hash": about.version},
            reinit="create_new",  # a run of the caller's own goes on
            settings=wandb.Settings(console="off"),  # the terminal is ours: a bar is drawn on it
            **chosen,
        )
        if self._run.offline:
            folder = Path(self._run.dir).parent
            return self._run.id, f"offline, in {folder}; to upload it later: wandb sync {folder}"
        return self._run.id, str(self._run.url or "switched off by WANDB_MODE")

    def log(self, values: Mapping[str, float], step: int) -> None:
        """A row; several at one step are one."""
        self._run.log(dict(values), step=step)

    def picture(self, path: Path, step: int) -> None:
        """As a picture among the charts."""
        import wandb

        self._run.log({"summary": wandb.Image(str(path))}, step=step)

    def end(self, status: str) -> None:
        """With the status in the run's summary, and the service's process if no other run needs it."""
        import wandb

        self._run.summary["status"] = status
        self._run.finish(exit_code=1 if status == "failed" else 0)
        if wandb.run is None:
            wandb.teardown()


def make(about: About) -> WeightsAndBiases:
    """The tracker."""
    return WeightsAndBiases(about)


def _logged_in() -> bool:
    """Whether a login is known, where W&B itself looks for it."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai").hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
