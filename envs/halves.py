"""The step of a wrapper in two halves, before and after the step of what it wraps; so that a batch can go in between.

A wrapper says its halves itself, by methods of the class that defines its `step`, which `step` calls too:
    before_step(action): return the action that the wrapped environment gets.
    after_step(observation, reward, terminated, truncated, info): return the five in the place of those.
    failed_step(error): return the five where something raised, in it or further inside; without it errors go on out.
One of them is enough. A wrapper without a `step` of its own has none. Those of Gymnasium are known here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
from gymnasium.error import ResetNeeded
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker, TimeLimit

from envs.kinds import layers_of

Result = tuple[Any, Any, bool, bool, dict[str, Any]]  # observation, reward, terminated, truncated, info
Wrapper = gym.Wrapper[Any, Any, Any, Any]
NAMES = ("before_step", "after_step", "failed_step")


@dataclass(frozen=True)
class Halves:
    """What a wrapper's step does before and after that of what it wraps; None: nothing."""

    before: Callable[[Any], Any] | None = None
    after: Callable[..., Result] | None = None
    failed: Callable[[Exception], Result] | None = None


Known = Mapping[type, Callable[[Any], Halves]]  # by the class that defines `step`


def halves_of(wrapper: Wrapper, known: Known) -> Halves | None:
    """Return the halves of a wrapper, or None where they are not known. known: of classes beside Gymnasium's."""
    if "step" in vars(wrapper):  # put over the class's by somebody
        return None
    definer = next(base for base in type(wrapper).__mro__ if "step" in vars(base))
    if any(name in vars(definer) for name in NAMES):
        return Halves(*(getattr(wrapper, name, None) for name in NAMES))
    make = {**GYMNASIUM, **known}.get(definer)
    return None if make is None else make(wrapper)


def replayed(wrapper: Any) -> Halves:
    """Return the halves of a wrapper whose step passes the action on as it is, and only then looks at what came.

    Its own step is run on what came, with a stand-in for what it wraps, of which it may ask the observation space.
    """
    stand_in = _StandIn(wrapper.observation_space)

    def after(*result: Any) -> Result:
        inner, stand_in.result = wrapper.env, result
        wrapper.env = stand_in
        try:
            found: Result = wrapper.step(None)
            return found
        finally:
            wrapper.env = inner

    return Halves(after=after)


class _StandIn:
    def __init__(self, observation_space: Any) -> None:
        self.observation_space, self.result = observation_space, ()

    def step(self, action: Any) -> Any:
        return self.result


def _time_limit(wrapper: Any) -> Halves:
    def after(observation: Any, reward: Any, terminated: bool, truncated: bool, info: dict[str, Any]) -> Result:
        wrapper._elapsed_steps += 1
        if wrapper._elapsed_steps >= wrapper._max_episode_steps:
            truncated = True
        return observation, reward, terminated, truncated, info

    return Halves(after=after)


def _order_enforcing(wrapper: Any) -> Halves:
    def before(action: Any) -> Any:
        if not wrapper._has_reset:
            raise ResetNeeded("Cannot call env.step() before calling env.reset()")
        return action

    return Halves(before)


def _passive_checker(wrapper: Any) -> Halves:
    check = replayed(wrapper).after
    assert check is not None

    def after(*result: Any) -> Any:
        if wrapper.checked_step and getattr(wrapper, "checked_data_reuse", True):  # older Gymnasium checks one step
            return result
        return check(*result)

    return Halves(after=after)


GYMNASIUM: Known = {
    gym.Wrapper: lambda wrapper: Halves(),
    TimeLimit: _time_limit,
    OrderEnforcing: _order_enforcing,
    PassiveEnvChecker: _passive_checker,
}


class Lane:
    """One environment's wrappers while the environment itself is stepped elsewhere.

    Args:
        env: the environment in its wrappers, whose halves must be known.
        known: the halves of classes beside Gymnasium's.

    Attributes:
        result: what a failed step returns; None while nothing has failed.

    Raises:
        ValueError: the halves of a wrapper are not known.
    """

    def __init__(self, env: gym.Env[Any, Any], known: Known) -> None:
        self.result: Result | None = None
        *wrappers, self.base = layers_of(env)
        halves = []
        for wrapper in wrappers:
            found = halves_of(wrapper, known)  # type: ignore[arg-type]
            if found is None:
                raise ValueError(f"what the wrapper {type(wrapper).__name__} does in a step is not known")
            halves.append(found)
        self._depth = len(halves)
        self._befores = [(place, half.before) for place, half in enumerate(halves) if half.before is not None]
        self._afters = [(place, half.after) for place, half in enumerate(halves) if half.after is not None][::-1]
        self._rescues = [(place, half.failed) for place, half in enumerate(halves) if half.failed is not None][::-1]

    def before(self, action: Any) -> Any:
        """Return the action for the environment itself; if a wrapper raises, `result` is what the step returns."""
        self.result = None
        place = 0
        try:
            for place, before in self._befores:  # noqa: B007
                action = before(action)
        except Exception as error:
            self._fail(error, place)
        return action

    def after(self, *result: Any) -> Result:
        """Return what the step returns, from what the environment itself does: five values."""
        return self._out(result, self._depth)

    def fail(self, error: Exception) -> None:
        """The environment itself raised: `result` is what the step returns. Raises `error` if no wrapper takes it."""
        self._fail(error, self._depth)

    def _out(self, result: Any, depth: int) -> Result:
        """From a result of the wrapper at `depth` outwards."""
        place = depth
        try:
            for place, after in self._afters if depth == self._depth else self._outside(depth):  # noqa: B007
                result = after(*result)
        except Exception as error:
            self._fail(error, place)
            assert self.result is not None
            return self.result
        return result  # type: ignore[no-any-return]

    def _outside(self, depth: int) -> list[tuple[int, Callable[..., Result]]]:
        return [(place, after) for place, after in self._afters if place < depth]

    def _fail(self, error: Exception, depth: int) -> None:
        """Something raised in the wrapper at `depth` (of the environment itself: one beyond the last)."""
        for place, rescue in self._rescues:
            if place <= depth:
                self.result = self._out(rescue(error), place)
                return
        raise error
