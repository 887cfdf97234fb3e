"""The simulations of several of Gymnasium's MuJoCo environments, stepped at once on several threads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mujoco
import numpy as np

from envs.crew import Crew, Share
from envs.native_physics import LIBRARY, NativePhysics


class Physics:
    """What `MujocoEnv.do_simulation` does, for many environments.

    Args:
        robots: the environments, each with a `model` and `data` of its own.
        threads: how many simulations run at once; what comes out does not depend on it.
        share: as for `envs.Batch`.
    """

    def __init__(self, robots: Sequence[Any], threads: int, share: Share | None = None) -> None:
        self._robots, self._threads, self._share = robots, threads, share
        self._crew = Crew(min(threads, len(robots)))
        self.bind()

    def bind(self) -> None:
        """Take the simulations that the environments have now."""
        self._jobs = [(robot.model, robot.data, robot.frame_skip) for robot in self._robots]
        self._controls = [robot.data.ctrl for robot in self._robots]
        self._shapes = [(robot.model.nu,) for robot in self._robots]
        self._native = NativePhysics(LIBRARY, self._jobs) if LIBRARY is not None else None

    def put(self, index: int, action: Any) -> None:
        """Give an action to one environment; raises what `do_simulation` raises."""
        shape = action.shape if type(action) is np.ndarray else np.array(action).shape
        if shape != self._shapes[index]:
            raise ValueError(f"Action dimension mismatch. Expected {self._shapes[index]}, found {shape}")
        self._controls[index][:] = action

    def step(self, indices: Sequence[int]) -> dict[int, Exception]:
        """Step these environments by a frame skip; return what MuJoCo raised, by index."""
        by_itself = self._threads > 1 and self._share is None  # Python's threads are woken sooner between simulations
        if LIBRARY is not None and self._native is not None and LIBRARY.is_usable() and not by_itself:
            return self._native.step(indices, self._threads, self._share)
        jobs = self._jobs

        def work(piece: int) -> None:
            model, data, frames = jobs[indices[piece]]
            mujoco.mj_step(model, data, frames)
            mujoco.mj_rnePostConstraint(model, data)

        return {indices[piece]: error for piece, error in self._crew.run(work, len(indices)).items()}

    def close(self) -> None:
        """End the threads."""
        self._crew.close()
