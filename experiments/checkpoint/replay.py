"""A replay buffer on disk: in segments that are written once, so that a checkpoint writes only what is new."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import safetensors.numpy
from stable_baselines3.common.buffers import ReplayBuffer

from experiments.checkpoint.store import FOLDER, SEGMENTS, Digest, replace_file

ARRAYS = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")


class Segments:
    """The segments `<first row>-<end>.safetensors` of one run, which together hold what is in the buffer.

    Rows are vector steps (one transition of each sub-environment), numbered from the run's first; row i lies at
    i mod buffer_size, as SB3 puts it there.
    """

    def __init__(self, run: Path):
        self.folder = run / FOLDER / SEGMENTS
        self.written: dict[str, Digest] = {}

    def write(self, buffer: ReplayBuffer, rows: int) -> dict[str, Digest]:
        """Write the rows added since the last segment; all segments that the buffer needs. rows: of the run so far."""
        size = buffer.buffer_size
        if rows % size != buffer.pos:
            raise ValueError(f"the replay buffer stands at row {buffer.pos}, not at {rows % size}")
        oldest = max(0, rows - size)
        self.written = {name: digest for name, digest in self.written.items() if _span(name)[1] > oldest}
        first = max((_span(name)[1] for name in self.written), default=oldest)
        if first < rows:
            places = np.arange(first, rows) % size
            content = safetensors.numpy.save({name: getattr(buffer, name)[places] for name in _arrays(buffer)})
            self.folder.mkdir(parents=True, exist_ok=True)
            name = f"{first:012d}-{rows:012d}.safetensors"
            self.written[name] = replace_file(self.folder / name, content)
        return dict(self.written)

    def read(self, buffer: ReplayBuffer, rows: int, segments: dict[str, Digest]) -> None:
        """Fill the buffer with what it held after so many rows."""
        size = buffer.buffer_size
        for name in segments:
            first, end = _span(name)
            places = np.arange(first, end) % size
            for array, values in safetensors.numpy.load((self.folder / name).read_bytes()).items():
                getattr(buffer, array)[places] = values
        buffer.pos, buffer.full = rows % size, rows >= size
        self.written = dict(segments)


def _arrays(buffer: ReplayBuffer) -> list[str]:
    return [name for name in ARRAYS if isinstance(getattr(buffer, name, None), np.ndarray)]


def _span(name: str) -> tuple[int, int]:
    first, end = name.partition(".")[0].split("-")
    return int(first), int(end)
