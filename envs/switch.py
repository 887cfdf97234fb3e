"""Several environments in one, of which one is active: what a sequence of tasks is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym

from envs import snapshot


class TaskSwitch(gym.Env[Any, Any]):
    """Several environments with equal spaces behind one interface; a reset enters the one that is `chosen`.

    Args:
        tasks: registered ids, or dicts with an `id` and keyword arguments for `gymnasium.make`.
        render_mode: of all tasks; None: each its own.

    Raises:
        ValueError: fewer than two tasks, one that is neither an id nor a dict with one, or spaces that differ.
    """

    def __init__(self, tasks: Sequence[str | Mapping[str, Any]], render_mode: str | None = None) -> None:
        if isinstance(tasks, str) or len(tasks) < 2:
            raise ValueError(f"a sequence of tasks needs a list of two ids or more, got {tasks!r}")
        for number, task in enumerate(tasks):
            if not isinstance(task, str) and not (isinstance(task, Mapping) and isinstance(task.get("id"), str)):
                raise ValueError(f"tasks[{number}] must be an id or a dict with an id, got {task!r}")
        settings = [{"id": task} if isinstance(task, str) else dict(task) for task in tasks]
        shown = {} if render_mode is None else {"render_mode": render_mode}
        self.envs = [gym.make(**(task | shown)) for task in settings]
        self.chosen = self.active = 0
        self.observation_space, self.action_space = self.envs[0].observation_space, self.envs[0].action_space
        self.metadata, self.render_mode = self.envs[0].metadata, self.envs[0].render_mode
        self._seeds: list[int | None] = [None] * len(self.envs)
        for task, env in zip(tasks, self.envs, strict=True):
            for kind in ("observation_space", "action_space"):
                if getattr(env, kind) != getattr(self, kind):
                    raise ValueError(
                        f"the tasks of a sequence need equal spaces: {kind} is {getattr(self, kind)} in {tasks[0]!r} "
                        f"and {getattr(env, kind)} in {task!r}"
                    )

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Enter the chosen task and reset it; a seed is for all tasks, each taking it at its own next reset."""
        super().reset(seed=seed)
        if seed is not None:
            self._seeds = [seed] * len(self.envs)
        self.active = self.chosen
        seed, self._seeds[self.active] = self._seeds[self.active], None
        return self.envs[self.active].reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step the active task."""
        return self.envs[self.active].step(action)

    def render(self) -> Any:
        """Render the active task."""
        return self.envs[self.active].render()

    def close(self) -> None:
        """Close all tasks."""
        for env in self.envs:
            env.close()

    # MuJoCo environments travel as their constructor call; see snapshot.py.

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "saved": [snapshot.save(env) for env in self.envs]}

    def __setstate__(self, state: dict[str, Any]) -> None:
        saved = state.pop("saved")
        vars(self).update(state)
        for env, its_state in zip(self.envs, saved, strict=True):
            snapshot.load(env, its_state)


class Task:
    """Which task of a `TaskSwitch` the next reset enters, by its number from 0."""

    name, nominal, low = "task", 0.0, 0.0
    boundaries = ("episode", "truncate")  # a task begins with a reset

    def validate(self, env: gym.Env[Any, Any]) -> None:
        switch: Any = env.unwrapped
        self._switch, self.high = switch, len(switch.envs) - 1.0

    def check(self, value: float) -> None:
        if not value.is_integer():
            raise ValueError(f"{self.name} takes whole numbers (to: list or cycle), got {value:g}")

    def apply(self, value: float) -> None:
        self._switch.chosen = int(value)

    def restore(self) -> None:
        self._switch.chosen = 0
