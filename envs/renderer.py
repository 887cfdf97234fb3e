"""MUJOCO_GL, which chooses what MuJoCo renders with, and without which nothing but pictures is lost."""

from __future__ import annotations

import os

RENDERERS = ("egl", "osmesa", "glfw")  # that Gymnasium renders MuJoCo with


def set_aside_renderer() -> str | None:
    """Make MuJoCo importable: with a MUJOCO_GL that it does not know it is not, even where nothing is rendered.

    Returns:
        The value that was replaced by `disable`, for this process and its children; None if it was left.
    """
    chosen = os.environ.get("MUJOCO_GL")
    if not chosen:
        return None
    try:
        import mujoco  # noqa: F401
    except ImportError:
        return None
    except RuntimeError:
        os.environ["MUJOCO_GL"] = "disable"
        return chosen
    return None
