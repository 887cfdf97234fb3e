"""The registered environments; importing `envs` registers them.

Entry points are functions that return the wrapped environment, so that keyword arguments reach both the schedule and
the simulator, and `gym.make(EnvSpec.from_json(env.spec.to_json()))` rebuilds the same stack. A new task is one function
here and one row in `TASKS`.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
from gymnasium.envs.classic_control.cartpole import CartPoleEnv
from gymnasium.envs.classic_control.pendulum import PendulumEnv

from envs.nonstationary import NonStationary
from envs.parsing import choose
from envs.switch import TaskSwitch


def slippery_ant(
    *,
    period: int | float | str = 2_000_000,
    to: str = "loguniform:0.02,2.0",
    first: str = "draw",
    legacy_obs: bool = False,
    **kwargs: Any,
) -> NonStationary:
    """Return Slippery Ant (Dohare et al., Loss of plasticity in deep continual learning, Nature 632:768, 2024).

    Ant-v5 whose friction, of all geoms, is drawn anew every 2,000,000 environment steps, at the end of the episode.

    Args:
        period: environment steps, all sub-environments together, between changes.
        to, first: the friction values, and whether the first regime is drawn too; see `parse_schedule`.
        legacy_obs: drop the contact forces, leaving 27 numbers: closest to what the published agents saw.
        kwargs: `table`, a recorded table instead of period, to and first (a CSV file with rows `step,friction`);
            `schedule_seed`, `stride`, `boundary`, `context`, `count_resets` of `NonStationary`; all others are for
            `gymnasium.envs.mujoco.ant_v5.AntEnv`.
    """
    from gymnasium.envs.mujoco.ant_v5 import AntEnv  # here, so that the other tasks need no mujoco

    if "target" in kwargs:
        raise ValueError(
            f"SlipperyAnt-v5 changes friction and takes no target, got {kwargs['target']!r}; for other quantities wrap "
            "Ant-v5 in NonStationary"
        )
    if legacy_obs:
        kwargs["include_cfrc_ext_in_observation"] = False
    return _non_stationary(AntEnv, "friction", period, to, first, **kwargs)


def ns_cartpole(
    *,
    target: str = "length",
    period: int | float | str = 10_000,
    to: str = "loguniform:0.2,4.0",
    first: str = "nominal",
    **kwargs: Any,
) -> NonStationary:
    """Return CartPole-v1 whose pole changes its length every 10,000 steps: quick, for tests and first looks.

    Args:
        target: gravity, masscart, masspole, length or force_mag, as a multiple of the nominal one.
        period: environment steps, all sub-environments together, between changes.
        to, first: the values; see `parse_schedule`.
        kwargs: as for `slippery_ant`; all others are for `CartPoleEnv`.
    """
    return _non_stationary(CartPoleEnv, target, period, to, first, **kwargs)


def ns_pendulum(
    *,
    target: str = "gravity",
    period: int | float | str = 8_000,
    to: str = "uniform:0.2,1.8",
    first: str = "nominal",
    **kwargs: Any,
) -> NonStationary:
    """Return Pendulum-v1 whose gravity changes every 8,000 steps (40 episodes): quick, for tests and first looks.

    Args:
        target: gravity, mass, length or max_torque, as a multiple of the nominal one.
        period: environment steps, all sub-environments together, between changes.
        to, first: the values; see `parse_schedule`.
        kwargs: as for `slippery_ant`; all others are for `PendulumEnv`.
    """
    return _non_stationary(PendulumEnv, target, period, to, first, **kwargs)


def _non_stationary(
    env_class: Any,
    target: str,
    period: int | float | str,
    to: str,
    first: str,
    *,
    table: str | None = None,
    schedule_seed: int = 0,
    stride: int = 1,
    boundary: str = "episode",
    context: str = "hidden",
    count_resets: bool = False,
    **kwargs: Any,
) -> NonStationary:
    known = {name for cls in env_class.__mro__ if "__init__" in vars(cls) for name in inspect.signature(cls).parameters}
    ours = {
        "target",
        "period",
        "to",
        "first",
        "table",
        "schedule_seed",
        "stride",
        "boundary",
        "context",
        "count_resets",
    }
    for name in kwargs:
        choose(f"keyword of {env_class.__name__}", name, sorted((known | ours) - {"args", "kwargs"}))
    when = {"when": f"every:{period}", "to": to, "first": first} if table is None else {"when": f"table:{table}"}
    return NonStationary(
        env_class(**kwargs),
        {"target": target, **when},
        schedule_seed=schedule_seed,
        stride=stride,
        boundary=boundary,
        context=context,
        count_resets=count_resets,
    )


def make_nonstationary(
    id: str,
    changes: Any,
    *,
    schedule_seed: int = 0,
    stride: int = 1,
    boundary: str = "episode",
    context: str = "hidden",
    count_resets: bool = False,
    **kwargs: Any,
) -> NonStationary:
    """Make a registered environment non-stationary: `NonStationary(gymnasium.make(id, **kwargs), changes, ...)`.

    Args:
        id: any registered id, such as `Hopper-v5`.
        changes, schedule_seed, stride, boundary, context, count_resets: see `NonStationary`.
        kwargs: for `gymnasium.make`.
    """
    return NonStationary(
        gym.make(id, **kwargs),
        changes,
        schedule_seed=schedule_seed,
        stride=stride,
        boundary=boundary,
        context=context,
        count_resets=count_resets,
    )


def make_task_sequence(
    tasks: Sequence[str | Mapping[str, Any]],
    steps_per_task: int | float | str,
    *,
    repeat: bool = True,
    schedule_seed: int = 0,
    stride: int = 1,
    boundary: str = "episode",
    context: str = "hidden",
    count_resets: bool = False,
) -> NonStationary:
    """Return a sequence of tasks: the first for `steps_per_task` environment steps, then the next, and so on.

    It is a `NonStationary` environment whose target `task` is the number of the task, from 0: infos, clock, pins and
    copies are as always. A task that is pinned is entered at the next reset.

    Args:
        tasks: registered ids, or dicts with an `id` and keyword arguments for `gymnasium.make`; two or more, with equal
            spaces.
        steps_per_task: environment steps, all sub-environments together.
        repeat: whether the first follows the last; otherwise the last stays for good.
        boundary: `episode` or `truncate`, see `NonStationary`: a task begins with a reset.
        schedule_seed, stride, context, count_resets: see `NonStationary`.
    """
    choose("'boundary' of a sequence of tasks", boundary, ("episode", "truncate"))
    order = ",".join(str(number) for number in range(len(tasks)))
    kind = "cycle" if repeat else "list"
    return NonStationary(
        TaskSwitch(tasks),
        {"target": "task", "when": f"every:{steps_per_task}", "to": f"{kind}:{order}", "first": "draw"},
        schedule_seed=schedule_seed,
        stride=stride,
        boundary=boundary,
        context=context,
        count_resets=count_resets,
    )


TASKS = {  # id: (entry point, time limit in steps of one environment, as for the environment it starts from)
    "SlipperyAnt-v5": ("envs.tasks:slippery_ant", 1000),
    "NSCartPole-v1": ("envs.tasks:ns_cartpole", 500),
    "NSPendulum-v1": ("envs.tasks:ns_pendulum", 200),
}


def register() -> None:
    """Register the tasks with Gymnasium; once is enough, and importing `envs` does it."""
    for id, (entry_point, limit) in TASKS.items():
        if id not in gym.registry:
            gym.register(id, entry_point, max_episode_steps=limit)
