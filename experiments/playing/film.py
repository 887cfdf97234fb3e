"""A film of an agent, written by a process of its own: a renderer that fails takes that process down alone.

python -m experiments.playing.film '{"folder": ..., "checkpoint": null, "regimes": [0, 3], "seed": 0, "deterministic":
true, "out": "play.gif"}'; prints how many pictures are done and how many there will be.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from agents.frozen import Env, FrozenRegimes
from envs.kinds import layers_of
from envs.nonstationary import NonStationary
from envs.show.film import captioned, palette, rate, simplify, skip
from envs.show.request import sentence
from envs.show.timeline import value_text
from experiments.playing.agent import Trained, load
from experiments.playing.regimes import make_frozen

SECONDS = 6  # of each regime, as fast as the world itself
EPISODES = 1000  # whose starts are known; short ones follow one another


class Filming:
    """A trained agent before a camera."""

    def __init__(self, trained: Trained, seed: int, deterministic: bool):
        settings = trained.config.env
        self.trained, self.deterministic = trained, deterministic
        self.env = make_frozen(replace(settings, kwargs={**settings.kwargs, "render_mode": "rgb_array"}))
        self.frozen = FrozenRegimes(lambda: self.env, EPISODES, seed, lambda: False)
        self.steps = round(SECONDS * rate(self.env))
        simplify(self.env)
        methods = "+".join(trained.config.plasticity) or "no method"
        self.title = f"{settings.id}  {trained.config.agent.algorithm.upper()} {methods}, step {trained.step:,}"

    @property
    def pictures(self) -> int:
        """How many there are of each regime."""
        return math.ceil(self.steps / skip(self.env))

    def first(self, regime: int) -> Image.Image:
        """The first picture of a regime."""
        return next(self.shoot(regime))

    def shoot(self, regime: int) -> Iterator[Image.Image]:
        """Pictures of the agent's first episodes in a regime."""
        done, episode, steps, total = True, -1, 0, 0.0
        episodes = count()
        observation: Any = None
        for step in range(self.steps):
            if done:
                episode, steps, total, done = next(episodes), 0, 0.0, False
                observation = self.frozen.begin(self.env, regime, episode)
            if step % skip(self.env) == 0:
                now = f"regime {regime}   episode {episode}   step {steps}   return {total:,.1f}"
                yield captioned(self.env.render(), [self.title, now, *in_force(self.env)])
            observation, reward, terminated, truncated, _ = self.env.step(self._action(observation))
            steps, total, done = steps + 1, total + float(reward), terminated or truncated

    def _action(self, observation: Any) -> Any:
        model = self.trained.model
        batch: Any = np.stack([observation])
        normaliser = model.get_vec_normalize_env()
        if normaliser is not None:
            batch = normaliser.normalize_obs(batch)
        return model.predict(batch, deterministic=self.deterministic)[0][0]


def in_force(env: Env) -> list[str]:
    """A line for each target that changes in this world."""
    wrapper = next((layer for layer in layers_of(env) if isinstance(layer, NonStationary)), None)
    return [] if wrapper is None else [f"{live.name} {value_text(live, live.value)}" for live in wrapper.lives]


def write_gif(path: Path, filming: Filming, regimes: Sequence[int]) -> None:
    """Of few colours, chosen from each regime's first picture."""
    colours = palette([filming.first(regime) for regime in regimes])
    stills = []
    for image in told(filming, regimes):
        stills.append(image.quantize(palette=colours, dither=Image.Dither.NONE))
    duration = round(1000 * skip(filming.env) / rate(filming.env))
    stills[0].save(path, save_all=True, append_images=stills[1:], duration=duration, loop=0)


def write_mp4(path: Path, filming: Filming, regimes: Sequence[int]) -> None:
    """With the ffmpeg that the package imageio-ffmpeg brings."""
    import imageio.v2 as imageio

    per_second = rate(filming.env) / skip(filming.env)
    opened: Any = imageio.get_writer(path, fps=per_second, macro_block_size=2)
    with opened as writer:
        for image in told(filming, regimes):
            even = image.crop((0, 0, image.width // 2 * 2, image.height // 2 * 2))
            writer.append_data(np.asarray(even))


def told(filming: Filming, regimes: Sequence[int]) -> Iterator[Image.Image]:
    """All pictures; says on stdout how many are done."""
    done = 0
    for regime in regimes:
        for image in filming.shoot(regime):
            yield image
            done += 1
            print(done, len(regimes) * filming.pictures, flush=True)


def main(words: Sequence[str]) -> None:
    """Write the film that the order, JSON, asks for."""
    order = json.loads(words[0])
    torch.set_num_threads(1)
    trained = load(Path(order["folder"]), order["checkpoint"])
    torch.manual_seed(order["seed"])
    out = Path(order["out"])
    filming = Filming(trained, order["seed"], order["deterministic"])
    (write_mp4 if out.suffix == ".mp4" else write_gif)(out, filming, order["regimes"])


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except Exception as error:  # a renderer can fail in any way; the other process says so
        sys.exit(sentence(error))
