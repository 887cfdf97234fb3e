"""Where a run's scalars go: `progress.csv` and TensorBoard, which a resumed run continues as if it never stopped."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stable_baselines3.common.logger import KVWriter, Logger

from experiments import folder as files
from experiments.events import EventFiles
from experiments.growing import Losses
from experiments.table import ProgressTable


class RunLogger(Logger):
    """SB3's logger with our outputs. events: None without TensorBoard. What is pending in it is no part of `files`."""

    def __init__(self, folder: Path, tensorboard: bool, losses: Losses, others: Sequence[KVWriter] = ()):
        self.table = ProgressTable(folder / files.PROGRESS, losses)
        self.events = EventFiles(folder, losses) if tensorboard else None
        super().__init__(str(folder), [self.table, *([self.events] if self.events else []), *others])

    def files(self) -> dict[str, Any]:
        """How far the files go, for a checkpoint, which is complete only when they are on the disk: see `paths`."""
        return {"rows": self.table.rows, "events": None if self.events is None else self.events.state_dict()}

    def paths(self) -> list[Path]:
        """The files that rows go to."""
        events = None if self.events is None else self.events.path
        return [self.table.path, *([] if events is None else [events])]

    def resume(self, files: dict[str, Any]) -> None:
        """Cut the files back to how far they went then; call it before anything is logged. Raises `OSError`."""
        self.table.resume(files["rows"])
        if self.events is not None and files["events"] is not None:
            self.events.load_state_dict(files["events"])


def make_logger(
    folder: Path, tensorboard: bool, losses: Losses | None = None, others: Sequence[KVWriter] = ()
) -> RunLogger:
    """A logger that writes into the run's folder. losses: where it notes what could not be written; others: outputs."""
    return RunLogger(folder, tensorboard, losses or Losses(), others)
