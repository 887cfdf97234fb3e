"""Ask another process for a film (film.py), with one way to render after another, and say why if none works."""

from __future__ import annotations

import importlib.util
import json
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from envs.show.video import rendered, surroundings
from experiments.errors import BadInput

PATIENCE = 120.0  # seconds for the first picture, and from each to the next
MOST = 12  # regimes in one film
FORMATS = (".gif", ".mp4")
Progress = Callable[[int, int], None]


def target(out: Path, asked: Path | None) -> Path:
    """The file to write; raises `BadInput` if it cannot be of that kind here."""
    ffmpeg = importlib.util.find_spec("imageio_ffmpeg") is not None
    if asked is None:
        return out / f"play{'.mp4' if ffmpeg else '.gif'}"
    if asked.suffix not in FORMATS:
        raise BadInput(f"--video must end in {' or '.join(FORMATS)}, got {asked}")
    if asked.suffix == ".mp4" and not ffmpeg:
        raise BadInput(
            f"--video {asked} needs ffmpeg: python -m pip install 'pliant-rl[video]'; or take "
            f"--video {asked.with_suffix('.gif')}"
        )
    return asked


def filmed(regimes: Sequence[int]) -> list[int]:
    """Those of the regimes that there is room for in a film, from the first to the last."""
    if len(regimes) <= MOST:
        return list(regimes)
    return [regimes[round(place * (len(regimes) - 1) / (MOST - 1))] for place in range(MOST)]


def make_film(
    folder: Path,
    checkpoint: int | None,
    regimes: Sequence[int],
    seed: int,
    deterministic: bool,
    out: Path,
    mujoco: bool,
    progress: Progress,
    chosen: str | None = None,
) -> str | None:
    """Write the film; None, or one sentence why it was not possible. progress: told the pictures done, and of how many.

    mujoco: whether the renderer has to be chosen; chosen: what the user asked for, None: what MUJOCO_GL says.
    """
    unfinished = out.with_name(f".unfinished.{out.name}")  # so that there is a whole film or none
    order = json.dumps(
        {
            "folder": str(folder),
            "checkpoint": checkpoint,
            "regimes": list(regimes),
            "seed": seed,
            "deterministic": deterministic,
            "out": str(unfinished),
        }
    )
    try:
        reason = rendered(mujoco, lambda renderer: _attempt(order, renderer, progress), chosen)
        if reason is None:
            unfinished.replace(out)
        return reason
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)


def _attempt(order: str, renderer: str, progress: Progress) -> str | None:
    """Return None if the film was written, else why not."""
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as said:
        with subprocess.Popen(
            [sys.executable, "-m", "experiments.playing.film", order],
            env=surroundings(renderer),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=said,
        ) as process:
            try:
                in_time = _listen(process, progress)
            finally:
                process.kill()  # where it has not ended by itself
        if not in_time:
            return f"there was no picture for {PATIENCE:g} s"
        if process.returncode == 0:
            return None
        said.seek(0)
        lines = [line.strip() for line in said if line.strip()]
    if process.returncode < 0:
        return f"it crashed (signal {-process.returncode})"
    return lines[-1] if lines else f"it ended with exit code {process.returncode}"


def _listen(process: subprocess.Popen[bytes], progress: Progress) -> bool:
    """Pass on how far it is until it ends; False if there is nothing new for too long."""
    assert process.stdout is not None
    while select.select([process.stdout], [], [], PATIENCE)[0]:
        piece = os.read(process.stdout.fileno(), 1 << 16)
        if not piece:
            process.wait()
            return True
        words = piece.split()
        if len(words) >= 2 and piece.endswith(b"\n"):
            progress(int(words[-2]), int(words[-1]))
    return False
