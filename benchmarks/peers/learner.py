"""A model of Stable-Baselines3's kind, trained in turns."""

from __future__ import annotations

import time
from typing import Any

from stable_baselines3.common.logger import Logger

from benchmarks.contestant import Caller, Stopwatch


def learn(caller: Caller, model: Any, steps: int) -> None:
    """So many environment steps a turn, after those with which the first begins before anything is learned.

    Told are the seconds of the turn and, among them, those of its updates.
    """
    model.set_logger(Logger(None, []))  # nothing is written, not even an empty folder at each call of learn
    updates, first = Stopwatch(), getattr(model, "learning_starts", 0)
    updates.around(model, "train")
    while caller.calls():
        before, start = model.num_timesteps, time.perf_counter()
        updates.take()
        model.learn(steps + first, reset_num_timesteps=False)
        seconds, first = time.perf_counter() - start, 0
        caller.tell(seconds=seconds, steps=model.num_timesteps - before, update_seconds=updates.take())
