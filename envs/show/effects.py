"""What the changes do to an environment, measured: the friction of real contacts, and one step from one state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from envs.live import NEVER, Live
from envs.nonstationary import NonStationary
from envs.snapshot import is_mujoco
from envs.values import Value, Vector

SEED = 0  # of the resets and the random actions, equal in everything that is compared
CONTACT_STEPS = 200  # with random actions, for each column of the table of contacts
LONG = 500  # steps with random actions, where one step shows nothing
LEADS = (0, 1, 4, 16, 32)  # nominal steps with random actions that lead to the states compared

Env = gym.Env[Any, Any]
Pair = tuple[str, str]


@dataclass(frozen=True)
class Effect:
    """What one value of one target changes in one step, at most, over several states.

    observation: the largest difference in any entry of the next observation, or of the one at the reset.
    reward: the difference in reward.
    parts: where nothing differs, after how many steps two episodes of random actions, one of them nominal, part; None
        if they do not.
    """

    name: str
    t: int
    observation: float
    reward: float
    parts: int | None

    @property
    def none(self) -> bool:
        """Whether nothing differed in any of the states tried."""
        return self.observation == 0 and self.reward == 0


def hold(env: Env, wrapper: NonStationary, t: int | None) -> None:
    """Begin an episode in which what is due at t stays in force; None: the environment as it came."""
    wrapper.unpin()
    env.reset(options={"schedule_clock": t or 0})
    wrapper.pin()
    if t is None:
        _make_nominal(wrapper)
    env.action_space.seed(SEED)
    env.reset(seed=SEED, options={"schedule_clock": t or 0})


def contact_friction(env: Env, wrapper: NonStationary, times: Sequence[int | None]) -> dict[Pair, list[set[float]]]:
    """Return the sliding friction of every contact that random actions bring about in a MuJoCo environment.

    Args:
        times: what is in force: what is due then; None: nothing, the environment is as it came.

    Returns:
        For each pair of geoms, those that touch most often first, for each of `times` the friction coefficients that
        the simulator used (none if they did not touch).
    """
    found: dict[Pair, list[set[float]]] = {}
    counts: dict[Pair, int] = {}
    base: Any = env.unwrapped
    if not is_mujoco(env):
        return {}
    for column, t in enumerate(times):
        hold(env, wrapper, t)
        for _ in range(CONTACT_STEPS):
            _, _, terminated, truncated, _ = env.step(env.action_space.sample())
            contact = base.data.contact
            for (one, other), friction, dimension in zip(contact.geom, contact.friction, contact.dim, strict=True):
                pair = _geom(base.model, int(one)), _geom(base.model, int(other))
                row = found.setdefault(pair, [set() for _ in times])
                row[column].add(float(friction[0]) if dimension >= 3 else 0.0)
                counts[pair] = counts.get(pair, 0) + 1
            if terminated or truncated:
                env.reset()
    return {pair: found[pair] for pair in sorted(found, key=lambda pair: -counts[pair])}


def _geom(model: Any, number: int) -> str:
    return model.geom(number).name or f"{model.body(int(model.geom_bodyid[number])).name} (geom {number})"


def one_step_effect(env: Env, wrapper: NonStationary, live: Live, t: int) -> Effect:
    """Return what the value that is due at t changes in one step: this target alone, all others nominal."""
    hold(env, wrapper, t)
    value = live.value
    differences = [
        [abs(one - other).max(initial=0.0) for one, other in zip(*pair, strict=True)]
        for lead in LEADS
        if (pair := [_transition(env, wrapper, live, lead, setting) for setting in (None, value)])
    ]
    observation = float(max(max(before, after) for before, after, _ in differences))
    reward = float(max(reward for _, _, reward in differences))
    parts = _parting(env, wrapper, live, value) if observation == reward == 0 else None
    return Effect(live.name, t, observation, reward, parts)


def _parting(env: Env, wrapper: NonStationary, live: Live, value: Value | None) -> int | None:
    nominal, changed = (_run(env, wrapper, live, setting) for setting in (None, value))
    for number, (one, other) in enumerate(zip(nominal, changed, strict=True)):
        if not np.array_equal(one, other):
            return number + 1
    return None


def _run(env: Env, wrapper: NonStationary, live: Live, value: Value | None) -> list[Vector]:
    """Return what each of many steps gave, as one vector a step."""
    hold(env, wrapper, None)
    live.put(-1, NEVER, value)
    env.reset(seed=SEED, options={"schedule_clock": 0})
    steps = []
    for _ in range(LONG):
        observation, reward, terminated, truncated, _ = env.step(env.action_space.sample())
        steps.append(np.append(_flat(wrapper, observation), [float(reward), terminated, truncated]))
        if terminated or truncated:
            env.reset()
    return steps


def _transition(env: Env, wrapper: NonStationary, live: Live, lead: int, value: Value | None) -> tuple[Vector, ...]:
    """Return the observation of the reset, and the next observation and reward after `lead` nominal steps."""
    hold(env, wrapper, None)
    first = np.zeros(0)
    if lead == 0:  # what acts at resets has to be in force by then
        live.put(-1, NEVER, value)
        observation, _ = env.reset(seed=SEED, options={"schedule_clock": 0})
        first = _flat(wrapper, observation)
    for _ in range(lead):
        _, _, terminated, truncated, _ = env.step(env.action_space.sample())
        if terminated or truncated:
            env.reset()
    live.put(-1, NEVER, value)
    observation, reward, _, _, _ = env.step(env.action_space.sample())
    return first, _flat(wrapper, observation), np.array([float(reward)])


def _make_nominal(wrapper: NonStationary) -> None:
    for live in wrapper.lives:
        live.put(-1, NEVER, None)


def _flat(wrapper: NonStationary, observation: Any) -> Vector:
    """Return an observation as one vector, less the values in force that context "obs" appends to it."""
    flat = np.asarray(gym.spaces.flatten(wrapper.observation_space, observation), np.float64)
    return flat[: gym.spaces.flatdim(wrapper.env.observation_space)]
