"""All trackers of a run as one output of its logger: what they raise costs a warning, never the run."""

from __future__ import annotations

import json
import os
import textwrap
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.logger import KVWriter, filter_excluded_keys

from agents.frozen import untouched_streams
from experiments import folder as files
from experiments.schema import Config
from experiments.trackers import About, Tracker, make_tracker

NUMBERS = (bool, int, float, np.bool_, np.integer, np.floating)
NOWHERE = -1  # before the first step


class Trackers(KVWriter):
    """Sends the scalars that TensorBoard gets to services, by environment step; draws from no global random stream.

    `trackers.json` in the run's folder keeps each service's id of the run and the last step it was sent, so that a
    resumed run goes on there, and sends no step twice.

    say: what a sentence is given to.
    """

    def __init__(self, names: Sequence[str], about: About, say: Callable[[str], None]):
        self.names, self.about, self.say = names, about, say
        self.path = about.folder / files.TRACKED
        self.step = 0
        self._kept: dict[str, dict[str, Any]] = _read(self.path)
        self._sent = {name: int(self._kept.get(name, {}).get("step", NOWHERE)) for name in names}  # by processes before
        self._open: dict[str, Tracker] = {}

    def begin(self) -> None:
        """Connect to all of them."""
        for name in self.names:
            self._try(name, self._begin)
        if self.names:
            self._keep()

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        """A row for an environment step."""
        self.step = step
        kept = filter_excluded_keys(key_values, key_excluded, "tensorboard")
        values = {key: float(value) for key, value in kept.items() if isinstance(value, NUMBERS)}
        for name in [name for name in self._open if values and step > self._sent[name]]:
            self._try(name, lambda name: self._open[name].log(values, step))
            self._kept[name]["step"] = step
        if self._open:
            self._keep()

    def end(self, status: str) -> None:
        """Say how the run ended, send its picture if there is one, and let go of all of them."""
        picture = self.about.folder / files.PICTURE
        if status != "failed" and picture.is_file():
            for name in list(self._open):
                self._try(name, lambda name: self._open[name].picture(picture, self.step))
        for name in list(self._open):
            self._try(name, lambda name: self._open.pop(name).end(status))

    def close(self) -> None:
        """Rows are over; `end` is still to come."""

    def _begin(self, name: str) -> None:
        tracker = make_tracker(name, self.about)
        last = self._kept.get(name, {}).get("id")
        found, where = tracker.begin(last)
        if found != last:  # a new one, or one that the service does not know any more
            self._sent[name] = NOWHERE
        self._kept[name] = {"id": found, "step": self._sent[name]}
        self._open[name] = tracker
        self.say(f"{name}: {where}")

    def _try(self, name: str, do: Callable[[str], None]) -> None:
        try:
            with untouched_streams():
                do(name)
        except Exception as error:  # whatever it is, the run is worth more
            self._open.pop(name, None)
            reason = textwrap.shorten(f"{type(error).__name__}: {error}", 240)
            self.say(f"warning: {name} is switched off for the rest of this run, which goes on without it ({reason})")

    def _keep(self) -> None:
        unfinished = self.path.with_name(f".{self.path.name}.unfinished")
        with suppress(OSError):  # on a full disk, a resumed run sends some rows twice
            unfinished.write_text(json.dumps(self._kept, indent=1) + "\n", "utf-8")
            os.replace(unfinished, self.path)


def about(config: Config, folder: Path, methods: Sequence[str]) -> About:
    """What trackers are told of a run. methods: the choices of plasticity."""
    tree = config.as_dict()
    settings = {name: value for name, value in tree.items() if name != "run"}  # which are of this machine
    tags = (config.agent.algorithm, config.env.id, *config.plasticity)
    return About(folder, "+".join(methods), tags, settings, files.config_hash(config))


def _read(path: Path) -> dict[str, dict[str, Any]]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and all(isinstance(one, dict) for one in found.values()) else {}
