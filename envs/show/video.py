"""Ask another process for a film (film.py), with one way to render after another, and say why if none works."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from envs.renderer import RENDERERS
from envs.show.request import Request

PATIENCE = 120.0  # seconds for one way to render
REST = "Everything else is done."


def make_video(
    request: Request, mujoco: bool, times: Sequence[int], video: Path, chosen: str | None = None
) -> str | None:
    """Write a GIF of the regimes in force at `times`.

    Args:
        mujoco: whether it is a MuJoCo environment, whose renderer has to be chosen.
        chosen: the renderer that the user asked for; None: what MUJOCO_GL says.

    Returns:
        None if it is written; else one sentence: why not, and what to install.
    """
    order = json.dumps({**asdict(request), "times": list(times), "out": str(video)})
    return rendered(mujoco, lambda renderer: _attempt(order, renderer), chosen)


def rendered(mujoco: bool, attempt: Callable[[str], str | None], chosen: str | None = None) -> str | None:
    """Let `attempt` make a video with one renderer after another; see `make_video`.

    Args:
        attempt: given a value for MUJOCO_GL, empty where nothing is to be chosen, returns None if it is done, else why
            not.
    """
    reasons, chosen = [], chosen or os.environ.get("MUJOCO_GL")
    if mujoco and chosen and chosen not in RENDERERS:
        known = ", ".join(RENDERERS)
        return f"No video: MUJOCO_GL is set to {chosen}, which is none of {known}. Unset it to try them. {REST}"
    for renderer in _renderers() if mujoco else [""]:
        reason = attempt(renderer)
        if reason is None:
            return None
        reasons.append(f"{renderer}: {reason}" if renderer and not chosen else reason)
    said = "; ".join(reasons).replace(".;", ";").removesuffix(".")
    if not mujoco:
        return f"No video: {said}. {REST}"
    if chosen:
        return f"No video: MUJOCO_GL is set to {chosen}, and {said}. Unset it to try egl and osmesa. {REST}"
    return (
        f"No video, since nothing here renders MuJoCo ({said}). On Debian or Ubuntu, install one of: "
        f"apt-get install libegl1, or apt-get install libosmesa6. {REST}"
    )


def surroundings(renderer: str) -> dict[str, str]:
    """Return the environment variables of a process that renders, on a machine that may have no screen."""
    path = os.pathsep.join([os.getcwd(), *filter(None, sys.path)])
    found = {"SDL_VIDEODRIVER": "dummy", **os.environ, "PYTHONPATH": path, "PYTHONWARNINGS": "ignore"}
    return {**found, "MUJOCO_GL": renderer} if renderer else found


def _renderers() -> list[str]:
    if chosen := os.environ.get("MUJOCO_GL"):
        return [chosen]
    return ["egl", "osmesa"] if sys.platform.startswith("linux") else [""]


def _attempt(order: str, renderer: str) -> str | None:
    """Return None if the film was written, else why not."""
    try:
        subprocess.run(
            [sys.executable, "-m", "envs.show.film", order],
            env=surroundings(renderer),
            timeout=PATIENCE,
            check=True,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        return f"it took more than {PATIENCE:g} s"
    except subprocess.CalledProcessError as error:
        if error.returncode < 0:
            return f"it crashed (signal {-error.returncode})"
        lines = [line for line in error.stderr.splitlines() if line.strip()]
        return lines[-1].strip() if lines else f"it ended with exit code {error.returncode}"
    return None
