"""Several of Gymnasium's MuJoCo environments stepped at once, in their wrappers, with the same results to the last bit.

Nothing is simulated twice or differently: the environments are the real ones, and all but `step` (resets, seeds, pins,
clocks, checkpoints) is theirs. A step goes through the first halves of all wrappers, then through all simulations, on
several threads, then through what the robots observe and are paid, then through the second halves of all wrappers.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from envs.batched_robots import CLASSES, kind_of
from envs.crew import Share, cores
from envs.halves import Known, Lane, Result
from envs.parsing import parse_count


def why_not_batched(envs: Sequence[gym.Env[Any, Any]], known: Known | None = None) -> str | None:
    """Return why these environments cannot be stepped as a `Batch`, in a sentence; None if they can.

    Args:
        envs: environments, in their wrappers.
        known: as for `Batch`.
    """
    try:
        lanes = [Lane(env, known or {}) for env in envs]
    except ValueError as error:
        return str(error)
    bases: list[Any] = [lane.base for lane in lanes]
    names = [type(base).__name__ for base in bases]
    if any(kind_of(base) is None or "step" in vars(base) for base in bases):
        known_names = ", ".join(name.partition(":")[2] for name in CLASSES)
        return f"{names[0]} is none of Gymnasium's {known_names}, version 5"
    if len({type(base) for base in bases}) > 1:
        return f"they are of several classes: {', '.join(dict.fromkeys(names))}"
    if any(base.render_mode == "human" for base in bases):
        return "render_mode='human' draws each of them in every step"
    if len({id(base.data) for base in bases}) < len(bases):
        return "two of them share one simulation"
    sizes = ("observation_space.shape", "model.nq", "model.nv", "model.nu", "model.nbody", "model.ntendon")
    if len({operator.attrgetter(*sizes)(base) for base in bases}) > 1:
        return "their models or observations differ in size"
    return None


class Batch:
    """Several environments, stepped at once.

    What an environment's step returns is what its own `step` would have returned, in every number, type and key, and
    both leave it in the same state: a step of the batch and steps of the environments can alternate. The wrappers'
    first halves of all environments come before all second halves; only environments that share something of a user's
    own, such as a global random stream, could tell.

    Args:
        envs: environments in their wrappers, for which `why_not_batched` gives no reason. Their wrappers stay as they
            are now.
        threads: how many simulations run at once, an integer >= 1; None: one for each core, at most one for each
            environment.
        known: the two halves of wrappers that are neither Gymnasium's, nor say them themselves (see `envs/halves.py`),
            by the class that defines `step`.
        share: what has several threads do a list of tasks of C's, `share(address, length, threads)`, such as
            `plasticity.native.share`; None: threads of this package's own.

    Raises:
        ValueError: the environments cannot be stepped as a batch.
    """

    def __init__(
        self,
        envs: Sequence[gym.Env[Any, Any]],
        *,
        threads: int | None = None,
        known: Known | None = None,
        share: Share | None = None,
    ) -> None:
        if not envs:
            raise ValueError("envs must be one environment or more, got none")
        if reason := why_not_batched(envs, known):
            raise ValueError(f"these environments cannot be stepped as a batch: {reason}")
        from envs.batched_physics import Physics

        count = cores() if threads is None else parse_count("threads", threads, minimum=1)
        self._envs, self._kwargs = [*envs], dict[str, Any](threads=count, known=known, share=share)
        self._lanes = [Lane(env, known or {}) for env in envs]
        robots = [lane.base for lane in self._lanes]
        kind = kind_of(robots[0])
        assert kind is not None
        self._robots, self._physics = kind(robots), Physics(robots, count, share)

    def __deepcopy__(self, memo: dict[int, Any]) -> Batch:
        """A batch of copies of the environments."""
        return type(self)(copy.deepcopy(self._envs, memo), **self._kwargs)

    def step(self, actions: Any) -> list[Result]:
        """Step all environments.

        Args:
            actions: one for each environment.

        Returns:
            observation, reward, terminated, truncated and info of each; nothing is reset.
        """
        lanes, physics, rows = self._lanes, self._physics, list(actions)
        acted = [lane.before(row) for lane, row in zip(lanes, rows, strict=True)]
        if self._robots.before():
            physics.bind()
        for index, lane in enumerate(lanes):
            if lane.result is None:
                try:
                    physics.put(index, acted[index])
                except Exception as error:
                    lane.fail(error)
        running = [index for index, lane in enumerate(lanes) if lane.result is None]
        for index, raised in physics.step(running).items():
            lanes[index].fail(raised)
        if failed := [index for index, lane in enumerate(lanes) if lane.result is not None]:
            if len(failed) == len(lanes):
                return [lane.result for lane in lanes]  # type: ignore[misc]
            sound = next(index for index in running if index not in failed)
            for index in failed:
                acted[index] = acted[sound]  # of no effect
        as_given = type(actions) is np.ndarray and all(map(operator.is_, acted, rows))
        results = self._robots.after(actions if as_given else acted)
        return [
            lane.after(*result) if lane.result is None else lane.result
            for lane, result in zip(lanes, results, strict=True)
        ]

    def close(self) -> None:
        """End the threads; the environments stay open."""
        self._physics.close()
