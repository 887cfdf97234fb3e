"""TensorBoard's event files of a run, row by row like its other tables."""

from __future__ import annotations

import io
import os
import socket
import time
from pathlib import Path
from typing import Any

from stable_baselines3.common.logger import TensorBoardOutputFormat
from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # type: ignore[import-untyped]
from tensorboard.summary.writer.record_writer import RecordWriter  # type: ignore[import-untyped]
from torch.utils.tensorboard.writer import FileWriter, SummaryWriter

from experiments.growing import GrowingFile, Losses

PATTERN = "events.out.tfevents.*"


class EventFiles(TensorBoardOutputFormat):
    """SB3's output to TensorBoard, but a row is in the file when `write` returns, and a full disk loses only rows.

    TensorBoard's own writer has a thread, which a failed write ends for good. A resumed run begins a file of its own,
    which tells a TensorBoard that watches to forget what came after the checkpoint; in the files before it that is cut
    off, so that every tag's steps increase whoever reads them. Files are made with their first row.

    resumed: whether `load_state_dict` was called.
    """

    def __init__(self, folder: Path, losses: Losses):
        self.writer = self._collecting = _Collecting(str(folder))
        self._is_closed = False
        self.folder, self.losses = folder, losses
        self.resumed = False
        self._before: dict[str, int] = {}  # sizes of the files before the present one
        self._file: GrowingFile | None = None
        self._last = -1  # environment step of the last row

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        """A row for an environment step."""
        super().write(key_values, key_excluded, step)
        piece = self._collecting.rows.events.take()
        if not piece:
            return
        if self._file is None:
            self._file = GrowingFile(self._new_path(), self.losses, self._header())
        if self._file.append(piece, step):
            self._last = step

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint of a run must keep: how far each file goes, and the step of the last row."""
        now = {} if self._file is None else {self._file.path.name: self._file.size}
        return {"files": {**self._before, **now}, "last": self._last}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken: cut off what was written later. Raises `OSError`."""
        self._last, self.resumed = state["last"], True
        for path in self.folder.glob(PATTERN):
            if path.name not in state["files"]:
                path.unlink()
        for name, size in state["files"].items():
            file = GrowingFile(self.folder / name, self.losses)
            file.cut(size)
            file.close()
            self._before[name] = file.size

    @property
    def path(self) -> Path | None:
        """The file that rows go to, once there is one."""
        return None if self._file is None else self._file.path

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
        super().close()

    def _new_path(self) -> Path:
        """Named as TensorBoard's own, which reads files in the order of their names: after all that are there."""
        stamps = [path.name.split(".")[3] for path in self.folder.glob(PATTERN)]
        stamp = max([int(time.time()), *(1 + int(stamp) for stamp in stamps if stamp.isdigit())])
        return self.folder / f"events.out.tfevents.{stamp:010d}.{socket.gethostname()}.{os.getpid()}.0"

    def _header(self) -> bytes:
        rows = _Rows()
        rows.add_event(Event(file_version="brain.Event:2"))
        if self.resumed:
            rows.add_event(Event(session_log=SessionLog(status=SessionLog.START)), self._last + 1)
        return rows.events.take()


class _Events:
    """In place of TensorBoard's EventFileWriter: keeps events, as their file has them, until they are taken."""

    def __init__(self) -> None:
        self._bytes = io.BytesIO()
        self._records = RecordWriter(self._bytes)

    def add_event(self, event: Event) -> None:
        self._records.write(event.SerializeToString())

    def take(self) -> bytes:
        taken: bytes = self._bytes.getvalue()
        self._bytes.seek(0)
        self._bytes.truncate()
        return taken

    def flush(self) -> None:
        return

    def close(self) -> None:
        return


class _Rows(FileWriter):
    """torch's interface to an event file, without the file."""

    def __init__(self) -> None:
        self.event_writer = self.events = _Events()


class _Collecting(SummaryWriter):
    """torch's writer of summaries, which keeps them in `rows` until they are taken."""

    def __init__(self, log_dir: str):
        self.rows = _Rows()
        super().__init__(log_dir)
        self.file_writer = self.rows  # type: ignore[assignment]  # where SB3 looks for it

    def _get_file_writer(self) -> _Rows:
        return self.rows
