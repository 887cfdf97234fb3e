"""Many robots of one class, and what all robots of Gymnasium do after the simulation; see batched_robots.py.

What runs over whole arrays is done for all robots together. Where the type of a result depends on types (float32
actions, a reward that is an integer), plain numbers are multiplied one by one, as Gymnasium does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.halves import Result

Array = NDArray[Any]


class Table:
    """Numbers of all simulations, a row for each, in memory of its own.

    Args:
        views: of each robot, one-dimensional views of its simulation's memory.
    """

    def __init__(self, views: Sequence[Sequence[Array]]) -> None:
        self._views = [view for row in views for view in row]
        self.numbers: Array = np.empty((len(views), sum(view.size for view in views[0])))
        self._flat = self.numbers.reshape(-1)

    def fill(self) -> Array:
        """Return what the simulations have now; the same memory each time."""
        np.concatenate(self._views, out=self._flat)
        return self.numbers


class Robots:
    """Several robots of one class.

    Args:
        robots: Gymnasium's environments, unwrapped, each with a `model` and `data` of its own, of the same sizes.
    """

    told: tuple[str, ...] = ()  # the keys of infos
    settings: tuple[str, ...] = ()  # attributes of a robot that decide what is read, and how it is paid
    always = (
        *("model", "data", "frame_skip", "_exclude_current_positions_from_observation"),
        *("_forward_reward_weight", "_ctrl_cost_weight"),
    )

    def __init__(self, robots: Sequence[Any]) -> None:
        self.robots = robots
        self._key = attrgetter(*self.always, *self.settings)
        self._keys: list[Any] = []

    def before(self) -> bool:
        """Look at the robots before the simulation; return whether any of the settings are other ones than before."""
        keys = [self._key(robot) for robot in self.robots]
        try:
            changed = keys != self._keys
        except ValueError:  # another array than before
            changed = True
        if changed:
            self._keys = keys
            self.bind()
        self.look()
        return changed

    def bind(self) -> None:
        """Take the settings, and find the arrays that are read."""
        self._options = [robot.model.opt for robot in self.robots]
        self._timesteps: list[float] = []
        self._forward_weights = self.each("_forward_reward_weight")
        self._effort_weights = self.all("_ctrl_cost_weight")
        self.whole = not self.robots[0]._exclude_current_positions_from_observation

    def look(self) -> None:
        """Keep what the simulation will change."""

    def after(self, actions: Sequence[Any] | Array) -> list[Result]:
        """Return what the steps return. actions: what each robot got."""
        raise NotImplementedError

    def table(self, view: Callable[[Any, Any], Iterable[Array]]) -> Table:
        """Return a table with a row for each robot. view(robot, data): what its row holds."""
        return Table([[array.reshape(-1) for array in view(robot, robot.data)] for robot in self.robots])

    def forward(self, velocities: Array) -> Array:
        """Return the forward rewards."""
        return velocities * self._forward_weights

    def seconds(self) -> Array:
        """Return how long a step is."""
        timesteps = [option.timestep for option in self._options]
        if timesteps != self._timesteps:
            self._timesteps = timesteps
            self._seconds = np.array(times(timesteps, self.all("frame_skip")))
        return self._seconds

    def efforts(self, square_sums: Iterable[Any]) -> list[Any]:
        """Return the costs of control."""
        return times(self._effort_weights, square_sums)

    def all(self, name: str) -> list[Any]:
        """Return a setting of each robot."""
        return [getattr(robot, name) for robot in self.robots]

    def each(self, name: str) -> Array:
        """Return a number, or a pair of them, of each robot as float64."""
        return np.array(self.all(name), np.float64)

    def results(self, seen: Array, rewards: Array, ends: Iterable[bool], *told: Iterable[Any]) -> list[Result]:
        """Return what the steps return, from columns."""
        names = self.told
        return [
            (row.copy(), reward, end, False, dict(zip(names, values, strict=True)))
            for row, reward, end, values in zip(seen, rewards, ends, zip(*told, strict=True), strict=True)
        ]


def square_sums(rows: Sequence[Any] | Array) -> Iterable[Any]:
    """Return np.sum(np.square(row)) for each row, of actions."""
    if type(rows) is np.ndarray:
        return row_sums(np.square(np.ascontiguousarray(rows)))
    return [np.sum(np.square(row)) for row in rows]


def row_sums(table: Array) -> Array:
    """Return the sum of each row."""
    sums: Array = np.add.reduce(table, axis=1)
    return sums


def distances(xy: Sequence[Array]) -> Array:
    """Return np.linalg.norm(view, ord=2) for each view of two numbers."""
    found: Array = np.sqrt(np.array([view.dot(view) for view in xy]))
    return found


def times(some: Iterable[Any], others: Iterable[Any]) -> list[Any]:
    """Return the products of plain numbers."""
    return [one * other for one, other in zip(some, others, strict=True)]


def negative(numbers: Iterable[Any]) -> list[Any]:
    """Return plain numbers with the other sign."""
    return [-number for number in numbers]


class Healthy(Robots):
    """Robots that are paid for being healthy, and whose episodes end when they are not."""

    settings: tuple[str, ...] = ("_healthy_reward", "_terminate_when_unhealthy", "_healthy_z_range")
    no: Any = np.False_
    yes: Any = np.True_

    def bind(self) -> None:
        super().bind()
        # Multiplied once: health is a truth value of NumPy, or of Python, which decides the type of the product.
        self._healthy_rewards = [(self.no * one, self.yes * one) for one in self.all("_healthy_reward")]
        self._ends = self.all("_terminate_when_unhealthy")
        self.low_z, self.high_z = self.each("_healthy_z_range").T

    def healthy(self, healths: list[bool]) -> list[Any]:
        """Return the rewards for being healthy."""
        return [either[healthy] for either, healthy in zip(self._healthy_rewards, healths, strict=True)]

    def terminated(self, healths: list[bool]) -> list[bool]:
        """Return which episodes end."""
        return [(not healthy) and end for healthy, end in zip(healths, self._ends, strict=True)]
