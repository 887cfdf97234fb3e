"""Gymnasium's MuJoCo robots, version 5: what a step observes, pays and tells, of many of one class at once.

Each class does what comes after the simulation in the `step` of the class it is named for, in the same arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from envs.batched_base import Array, Healthy, Robots, distances, negative, row_sums, square_sums, times
from envs.halves import Result
from envs.kinds import class_name

MODULE = "gymnasium.envs.mujoco."


class Ant(Healthy):
    told = (
        *("x_position", "y_position", "distance_from_origin", "x_velocity", "y_velocity"),
        *("reward_forward", "reward_ctrl", "reward_contact", "reward_survive"),
    )
    settings = (
        *Healthy.settings,
        *("_include_cfrc_ext_in_observation", "_main_body", "_contact_force_range", "_contact_cost_weight"),
    )

    def bind(self) -> None:
        super().bind()
        self._state = self.table(lambda robot, data: (data.qpos, data.qvel, data.cfrc_ext, self._place(robot)))
        self._body = self.table(lambda robot, data: (self._place(robot),))
        self._xy = [robot.data.qpos[:2] for robot in self.robots]
        self._least, self._most = self.each("_contact_force_range").T[:, :, None]
        self._contact_weights = self.each("_contact_cost_weight")
        robot, first = self.robots[0], 0 if self.whole else 2
        moving = robot.data.qpos.size + robot.data.qvel.size
        numbers = self._state.numbers
        self._moving, self._forces, self._end = numbers[:, :moving], numbers[:, moving:-2], numbers[:, -2:]
        self._columns = tuple(numbers[:, :3].T)
        self._felt, self._squares = np.empty_like(self._forces), np.empty_like(self._forces)
        self._parts = [self._moving[:, first:]]
        if robot._include_cfrc_ext_in_observation:
            self._parts.append(self._felt[:, 6:])  # without what the world itself feels

    def _place(self, robot: Any) -> Array:
        place: Array = robot.data.body(robot._main_body).xpos[:2]
        return place

    def look(self) -> None:
        self._start = self._body.fill()

    def after(self, actions: Sequence[Any] | Array) -> list[Result]:
        self._state.fill()
        x, y, z = self._columns
        felt = self._forces.clip(self._least, self._most, out=self._felt)
        healths = np.logical_and.reduce(np.isfinite(self._moving), axis=1)
        healths &= self.low_z <= z
        healths &= z <= self.high_z
        fit = healths.tolist()
        velocities = (self._end - self._start).T / self.seconds()
        forward, healthy = self.forward(velocities[0]), self.healthy(fit)
        efforts = self.efforts(square_sums(actions))
        contact = self._contact_weights * row_sums(np.square(felt, out=self._squares))
        rewards = (forward + healthy) - (efforts + contact)
        told = (x, y, distances(self._xy), *velocities, forward, negative(efforts), -contact, healthy)
        return self.results(np.concatenate(self._parts, axis=1), rewards, self.terminated(fit), *told)


class Humanoid(Healthy):
    told = (
        *("x_position", "y_position", "tendon_length", "tendon_velocity", "distance_from_origin"),
        *("x_velocity", "y_velocity", "reward_survive", "reward_forward", "reward_ctrl", "reward_contact"),
    )
    parts = ("cinert", "cvel", "qfrc_actuator", "cfrc_ext")
    includes = tuple(f"_include_{part}_in_observation" for part in parts)
    settings = (*Healthy.settings, *includes, "_contact_cost_weight", "_contact_cost_range")

    def bind(self) -> None:
        super().bind()
        self._seen = self.table(self._observe)
        self._position = self.table(lambda robot, data: (data.qpos[:3],))
        self._xy = [robot.data.qpos[:2] for robot in self.robots]
        self._forces = self.table(lambda robot, data: (data.cfrc_ext,))
        self._controls = self.table(lambda robot, data: (data.ctrl,))
        self._masses = self.table(lambda robot, data: (robot.model.body_mass,))
        self._centres = self.table(lambda robot, data: (data.xipos,))
        self._contact_weights, self._contact_ranges = (
            self.all("_contact_cost_weight"),
            self.all("_contact_cost_range"),
        )

    def _observe(self, robot: Any, data: Any) -> list[Array]:
        seen = [data.qpos[0 if self.whole else 2 :], data.qvel]
        for part, include in zip(self.parts, self.includes, strict=True):
            if getattr(robot, include) is True:
                seen.append(getattr(data, part)[6 if part == "qfrc_actuator" else 1 :])
        return seen

    def look(self) -> None:
        self._start = self._centre_of_mass()

    def _centre_of_mass(self) -> Array:
        """Return gymnasium's `mass_center` of each robot, of shape (robots, 2)."""
        masses = self._masses.fill()
        moments = np.einsum("nb,nbj->nj", masses, self._centres.fill().reshape(*masses.shape, 3))
        centres: Array = (moments / row_sums(masses)[:, None])[:, :2]
        return centres

    def after(self, actions: Sequence[Any] | Array) -> list[Result]:
        x, y, z = self._position.fill().T
        healths = ((self.low_z < z) & (z < self.high_z)).tolist()
        velocities = (self._centre_of_mass() - self._start).T / self.seconds()
        forward, healthy = self.forward(velocities[0]), self.healthy(healths)
        efforts = self.efforts(row_sums(np.square(self._controls.fill())))
        unclipped = times(self._contact_weights, row_sums(np.square(self._forces.fill())))
        contact = [np.clip(cost, *limits) for cost, limits in zip(unclipped, self._contact_ranges, strict=True)]
        rewards = (forward + healthy) - (np.array(efforts) + contact)
        lengths = [robot.data.ten_length.copy() for robot in self.robots]
        speeds = [robot.data.ten_velocity.copy() for robot in self.robots]
        costs = (negative(efforts), negative(contact))
        told = (x, y, lengths, speeds, distances(self._xy), *velocities, healthy, forward, *costs)
        return self.results(self._seen.fill(), rewards, self.terminated(healths), *told)


class Planar(Robots):
    """Robots in the x-z plane, which are paid for the velocity of their first coordinate."""

    def bind(self) -> None:
        super().bind()
        self.positions = self.robots[0].data.qpos.size
        self.state = self.table(lambda robot, data: (data.qpos, data.qvel))
        self._xs = self.table(lambda robot, data: (data.qpos[:1],))

    def look(self) -> None:
        self.start = self._xs.fill()[:, 0]


class HalfCheetah(Planar):
    told = ("x_position", "x_velocity", "reward_forward", "reward_ctrl")

    def after(self, actions: Sequence[Any] | Array) -> list[Result]:
        table = self.state.fill()
        x = table[:, 0]
        velocities = (x - self.start) / self.seconds()
        forward, efforts = self.forward(velocities), self.efforts(square_sums(actions))
        seen = table if self.whole else table[:, 1:]
        never = [False] * len(table)
        return self.results(seen, forward - efforts, never, x, velocities, forward, negative(efforts))


class Walker2d(Planar, Healthy):
    told = (
        *("x_position", "z_distance_from_origin", "x_velocity"),
        *("reward_forward", "reward_ctrl", "reward_survive"),
    )
    settings = (*Healthy.settings, "_healthy_angle_range")

    def bind(self) -> None:
        super().bind()
        self.low_angle, self.high_angle = self.each("_healthy_angle_range").T

    def after(self, actions: Sequence[Any] | Array) -> list[Result]:
        table = self.state.fill()
        x, z = table[:, :2].T
        healths = self.healths(table).tolist()
        velocities = (x - self.start) / self.seconds()
        forward, healthy = self.forward(velocities), self.healthy(healths)
        efforts = self.efforts(square_sums(actions))
        first = 0 if self.whole else 1
        speeds = np.clip(table[:, self.positions :], -10, 10)
        seen = np.concatenate((table[:, first : self.positions], speeds), axis=1)
        rewards = (forward + healthy) - efforts
        told = (x, z - [robot.init_qpos[1] for robot in self.robots], velocities, forward, negative(efforts), healthy)
        return self.results(seen, rewards, self.terminated(healths), *told)

    def healths(self, table: Array) -> Array:
        """Return which robots are healthy. table: positions and velocities."""
        z, angle = table[:, 1:3].T
        healths: Array = (self.low_z < z) & (z < self.high_z) & (self.low_angle < angle) & (angle < self.high_angle)
        return healths


class Hopper(Walker2d):
    settings = (*Walker2d.settings, "_healthy_state_range")
    no, yes = False, True

    def bind(self) -> None:
        super().bind()
        self._least, self._most = self.each("_healthy_state_range").T[:, :, None]

    def healths(self, table: Array) -> Array:
        state = table[:, 2:]
        within: Array = np.logical_and(self._least < state, state < self._most).all(axis=1)
        return super().healths(table) & within


CLASSES: dict[str, type[Robots]] = {
    MODULE + "ant_v5:AntEnv": Ant,
    MODULE + "half_cheetah_v5:HalfCheetahEnv": HalfCheetah,
    MODULE + "humanoid_v5:HumanoidEnv": Humanoid,
    MODULE + "hopper_v5:HopperEnv": Hopper,
    MODULE + "walker2d_v5:Walker2dEnv": Walker2d,
}


def kind_of(robot: Any) -> type[Robots] | None:
    """Return the class here for an environment of Gymnasium's, if there is one; none for what derives from it."""
    return CLASSES.get(class_name(robot))
