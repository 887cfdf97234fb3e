"""A short film of the regimes, written by a process of its own: a renderer that fails takes that process down alone.

python -m envs.show.film '{"id": ..., "settings": {}, "changes": [], "times": [0, 1000], "out": "film.gif"}'
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from envs.nonstationary import NonStationary
from envs.show.effects import hold
from envs.show.request import Request, sentence
from envs.show.timeline import value_text
from envs.snapshot import is_mujoco

SECONDS = 2.5  # of each regime
FASTEST = 12  # pictures a second
SIZE = 320  # pixels on the longer side
LINE = 17  # pixels of a line of text
COLOURS = 96
SOME = 12  # pictures that the colours are chosen from


def shoot(env: gym.Env[Any, Any], wrapper: NonStationary, times: Sequence[int], title: str) -> list[Image.Image]:
    """Return pictures of random actions, the same ones in each regime."""
    images = []
    simplify(env)
    for t in times:
        hold(env, wrapper, t)
        lines = [title, *_in_force(wrapper)]
        for number in range(round(SECONDS * rate(env))):
            if number % skip(env) == 0:
                images.append(captioned(env.render(), lines))
            _, _, terminated, truncated, _ = env.step(env.action_space.sample())
            if terminated or truncated:
                env.reset()
    return images


def _in_force(wrapper: NonStationary) -> list[str]:
    lives = wrapper.lives
    regime = "" if all(live.drifts for live in lives) else f"regime {sum(live.regime for live in lives)}   "
    return [f"{regime}t = {wrapper.clock:,}", *(f"{live.name} {value_text(live, live.value)}" for live in lives)]


def rate(env: gym.Env[Any, Any]) -> float:
    return float(env.metadata.get("render_fps") or 30)


def skip(env: gym.Env[Any, Any]) -> int:
    return math.ceil(rate(env) / FASTEST)


def simplify(env: gym.Env[Any, Any]) -> None:
    """Let the camera of a MuJoCo environment follow, and leave out what a processor takes long to draw."""
    base: Any = env.unwrapped
    if not is_mujoco(env):
        return
    model, renderer = base.model, base.mujoco_renderer
    if renderer.camera_id == -1 and model.ncam:
        renderer.camera_id = 0
    model.mat_reflectance[:] = 0.0
    model.light_castshadow[:] = 0
    model.vis.quality.offsamples = 0


def captioned(pixels: Any, lines: Sequence[str]) -> Image.Image:
    """Return the picture, smaller, below a band of text."""
    if not isinstance(pixels, np.ndarray):
        raise TypeError(f"its render() gave no picture but {type(pixels).__name__}")
    frame: NDArray[np.uint8] = np.asarray(pixels, np.uint8)
    if frame.min() == frame.max():
        raise RuntimeError("the renderer drew nothing: every pixel is the same")
    picture = Image.fromarray(frame)
    picture.thumbnail((SIZE, SIZE))
    band = LINE * len(lines) + 8
    whole = Image.new("RGB", (picture.width, picture.height + band), "white")
    whole.paste(picture, (0, band))
    draw = ImageDraw.Draw(whole)
    for number, line in enumerate(lines):
        font = _font(12)
        while draw.textlength(line, font) > whole.width - 12 and font.size > 7:
            font = _font(font.size - 1)
        draw.text((6, 4 + LINE * number), line, fill="#22262b", font=font)
    return whole


def palette(images: Sequence[Image.Image]) -> Image.Image:
    """Return colours that serve all pictures: with some of its own for each, what stands still would flicker."""
    some = images[:: math.ceil(len(images) / SOME)]
    sheet = Image.new("RGB", (sum(image.width for image in some), max(image.height for image in some)), "white")
    left = 0
    for image in some:
        sheet.paste(image, (left, 0))
        left += image.width
    return sheet.quantize(COLOURS)


def _font(size: float) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)


def main(words: Sequence[str]) -> None:
    """Write the film that the request, JSON, asks for."""
    wanted = json.loads(words[0])
    env, wrapper = Request(wanted["id"], wanted["settings"], tuple(wanted["changes"])).build("rgb_array")
    images = shoot(env, wrapper, wanted["times"], wanted["id"])
    colours = palette(images)
    stills = [image.quantize(palette=colours, dither=Image.Dither.NONE) for image in images]
    duration = round(1000 * skip(env) / rate(env))
    stills[0].save(wanted["out"], save_all=True, append_images=stills[1:], duration=duration, loop=0)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except Exception as error:  # a renderer can fail in any way; the other process says so
        sys.exit(sentence(error))
