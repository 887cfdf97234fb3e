"""From the table of tasks to environments: the entry point of every registered id, and makers for those that are not.

The entry point is one function that returns the wrapped environment, so that keyword arguments reach both the schedule
and the simulator, and `gym.make(EnvSpec.from_json(env.spec.to_json()))` rebuilds the same stack.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import load_env_creator

from envs.drift import Drift
from envs.grammar import parse_schedule
from envs.lookup import arguments, find_spec, unexpected_argument
from envs.nonstationary import NonStationary
from envs.parsing import choose
from envs.switch import TaskSwitch
from envs.tasks import TASKS, TaskRow

ENTRY_POINT = "envs.registration:make_task"
# The keyword arguments of the wrapper, which those of simulators must not share.
WRAPPER = tuple(
    name for name, p in inspect.signature(NonStationary.__init__).parameters.items() if p.kind is p.KEYWORD_ONLY
)


def make_task(
    task: str,
    *,
    target: str | None = None,
    period: int | float | str | None = None,
    to: str | None = None,
    first: str | None = None,
    drift: str | None = None,
    table: str | None = None,
    **kwargs: Any,
) -> NonStationary:
    """Return a task of the table, without the time limit: `gymnasium.make(id, ...)` calls this.

    Args:
        task: the id.
        target: what changes, where the task lets one choose.
        period: environment steps, all sub-environments together, between changes; the time scale of a drift.
        to, first: the values, and whether the first regime is drawn too; see `parse_schedule`.
        drift: a drift, such as `sine:1e6,0.5,1.5`, or
        table: a recorded table (a CSV file with rows `step,value`): each in place of period, to, first and the other.
        kwargs: those of `NonStationary` go there; all others to the environment's class.

    Raises:
        ValueError: an unknown id, target or keyword, or a schedule that cannot be read.
        gymnasium.error.DependencyNotInstalled: LunarLander without Box2D.
    """
    row = TASKS[choose("task", task, TASKS)]
    if target is not None and len(row.changes) == 1 and target not in row.changes:
        raise ValueError(
            f"{task} changes {next(iter(row.changes))} and takes no target, got {target!r}; for other quantities wrap "
            f"{row.base} in NonStationary"
        )
    name = next(iter(row.changes)) if target is None else choose(f"'target' of {task}", target, row.changes)
    asked = {"drift": drift, "table": table, "period": period, "to": to, "first": first}
    given = {key: value for key, value in asked.items() if value is not None}
    if "drift" in given or "table" in given:
        _refuse_company(given)
        change = {"when": f"table:{table}"} if drift is None else {"drift": drift}
    else:
        change = _paced(row.changes[name], given.pop("period", None)) | given
    ours, theirs = _divided(kwargs)
    return NonStationary(_simulator(task, row, theirs), {"target": name, **change}, **ours)


def make_nonstationary(id: str, changes: Any, **kwargs: Any) -> NonStationary:
    """Make a registered environment non-stationary: `NonStationary(gymnasium.make(id, ...), changes, ...)`.

    Args:
        id: any registered id, such as `Hopper-v5`.
        changes: see `NonStationary`.
        kwargs: those of `NonStationary` (`schedule_seed`, `stride`, `boundary`, `context`, `count_resets`) go there;
            all others to `gymnasium.make`.
    """
    ours, theirs = _divided(kwargs)
    try:
        env = gym.make(id, **theirs)
    except TypeError as error:
        if (name := unexpected_argument(error)) is None:
            raise
        choose(f"keyword of {id}", name, sorted({*arguments(find_spec(id)), *WRAPPER}))
        raise
    return NonStationary(env, changes, **ours)


def make_task_sequence(
    tasks: Sequence[str | Mapping[str, Any]], steps_per_task: int | float | str, *, repeat: bool = True, **kwargs: Any
) -> NonStationary:
    """Return a sequence of tasks: the first for `steps_per_task` environment steps, then the next, and so on.

    It is a `NonStationary` environment whose target `task` is the number of the task, from 0: infos, clock, pins and
    copies are as always. A task that is pinned is entered at the next reset.

    Args:
        tasks: registered ids, or dicts with an `id` and keyword arguments for `gymnasium.make`; two or more, with equal
            spaces.
        steps_per_task: environment steps, all sub-environments together.
        repeat: whether the first follows the last; otherwise the last stays for good.
        kwargs: for `NonStationary`; `boundary` is `episode` or `truncate`, since a task begins with a reset.
    """
    order = ",".join(str(number) for number in range(len(tasks)))
    kind = "cycle" if repeat else "list"
    change = {"target": "task", "when": f"every:{steps_per_task}", "to": f"{kind}:{order}", "first": "draw"}
    return NonStationary(TaskSwitch(tasks), change, **kwargs)


def register() -> None:
    """Register the tasks with Gymnasium; once is enough, and importing `envs` does it."""
    for id, row in TASKS.items():
        if id not in gym.registry:
            known = gym.registry.get(row.base)
            gym.register(
                id,
                ENTRY_POINT,
                max_episode_steps=None if known is None else known.max_episode_steps,
                nondeterministic=isinstance(parse_schedule(next(iter(row.changes.values()))), Drift),
                kwargs={"task": id},
            )


def _refuse_company(given: Mapping[str, Any]) -> None:
    """A drift and a table each bring all of a schedule: what stands beside one of them would be ignored."""
    whole, *others = given
    if others:
        typed = " ".join(f"env.kwargs.{name}=null" for name in others)
        raise ValueError(
            f"{whole}={given[whole]!r} brings its own times and values: leave out {' and '.join(others)} (None; in "
            f"train.py, whose files may set it, {typed})"
        )


def _paced(schedule: str, period: int | float | str | None) -> dict[str, Any]:
    """Return the dict form of a task's own schedule or drift, at another pace if one is given."""
    change: dict[str, Any] = dict(parse_schedule(schedule).to_dict())
    if period is None:
        return change
    if "drift" not in change:
        return change | {"when": f"every:{period}"}
    kind, _, numbers = change["drift"].partition(":")
    return {"drift": f"{kind}:{period},{numbers.partition(',')[2]}"}  # the resolution follows the pace


def _divided(kwargs: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Divide keyword arguments into the wrapper's and all others."""
    ours = {name: value for name, value in kwargs.items() if name in WRAPPER}
    return ours, {name: value for name, value in kwargs.items() if name not in WRAPPER}


def _simulator(task: str, row: TaskRow, kwargs: Mapping[str, Any]) -> gym.Env[Any, Any]:
    registered = gym.registry.get(row.base)
    entry_point = row.base if registered is None else str(registered.entry_point)
    try:
        with warnings.catch_warnings():  # as an error, this one of SWIG's would end the process when Box2D is imported
            warnings.filterwarnings("ignore", "builtin type .* has no __module__ attribute", DeprecationWarning)
            make: Any = load_env_creator(entry_point)
    except gym.error.DependencyNotInstalled as error:
        if "box2d" not in entry_point:
            raise
        raise gym.error.DependencyNotInstalled(
            f'{task} needs Box2D: python -m pip install "pliant-rl[box2d]" (or "gymnasium[box2d]")'
        ) from error
    known = {name for cls in make.__mro__ if "__init__" in vars(cls) for name in inspect.signature(cls).parameters}
    own = set(inspect.signature(make_task).parameters) - {"task", "kwargs"} | set(WRAPPER) | set(row.flags)
    settings = {**({} if registered is None else registered.kwargs), **row.kwargs}
    for name, value in kwargs.items():
        choose(f"keyword of {make.__name__}", name, sorted((known | own) - {"args", "kwargs"}))
        settings |= {name: value} if name not in row.flags else row.flags[name] if value else {}
    env: gym.Env[Any, Any] = make(**settings)
    return env
