"""How training grows slower or faster: with width, depth, the number of environments, and of runs side by side.

Ours is a run of train.py with continual backprop on Slippery Ant, the peer Stable-Baselines3's PPO on Ant, both with
the published settings but for what is varied; a rollout has 2048 steps always.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from benchmarks import settings
from benchmarks.parts import Plan
from benchmarks.turns import Child, Entry, Turn, children, speeds, spread, take_turns

AXES: dict[str, tuple[str, tuple[int, ...]]] = {
    "width": ("units of a hidden layer", (64, 128, 256, 512, 1024)),
    "depth": ("hidden layers", (1, 2, 4, 8)),
    "n_envs": ("environments", (1, 2, 4, 8, 16, 32)),
    "runs": ("runs side by side, one thread each", (1, 2, 4)),
}
SECONDS = 480  # about how long all of it takes


def points(quick: bool) -> Iterator[tuple[str, int]]:
    """All that is measured: what is varied, and its value; quick: only the ends."""
    for axis, (_, values) in AXES.items():
        for value in (values[0], values[-1]) if quick else values:
            yield axis, value


def measure(plan: Plan, advance: Callable[[float], None]) -> dict[str, Any]:
    """Steps a second of ours and of the peer at each point, with quartiles over the turns."""
    found: dict[str, Any] = {axis: {} for axis in AXES}
    turns, all_points = 2 if plan.quick else 4, [*points(plan.quick)]
    for axis, value in all_points:
        mine, theirs = _side_by_side(plan, value, turns) if axis == "runs" else _pair(plan, {axis: value}, turns)
        found[axis][str(value)] = {"ours": spread(mine).as_dict(), "peer": spread(theirs).as_dict()}
        advance(1 / len(all_points))
    return found


def _pair(plan: Plan, options: dict[str, Any], turns: int) -> tuple[list[float], list[float]]:
    ours = Entry("ours.train", {"words": settings.ppo_words(**options), "steps": settings.ROLLOUT})
    with children([ours, Entry("peers.sb3.ppo", options, plan.peers)]) as pair:
        mine, theirs = take_turns(pair, turns)
    return speeds(mine), speeds(theirs)


def _side_by_side(plan: Plan, runs: int, turns: int) -> tuple[list[float], list[float]]:
    """Steps a second of all runs together, each with one thread."""
    ours = Entry("ours.train", {"words": [*settings.ppo_words(), "run.threads=1"], "steps": settings.ROLLOUT})
    peer = Entry("peers.sb3.ppo", {"threads": 1}, plan.peers)
    with children([ours] * runs) as mine, children([peer] * runs) as theirs:
        told = take_turns([Together(mine), Together(theirs)], turns)
    return speeds(told[0]), speeds(told[1])


class Together:
    """Children that take their turns all at once."""

    def __init__(self, some: Sequence[Child]):
        self._some = some

    def turn(self) -> Turn:
        """The seconds until the last is done, and the steps of all."""
        start = time.perf_counter()
        for child in self._some:
            child.call()
        steps = sum(child.told()["steps"] for child in self._some)
        return {"seconds": time.perf_counter() - start, "steps": steps}
