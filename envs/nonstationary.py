"""The wrapper that makes any Gymnasium environment non-stationary."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils import RecordConstructorArgs

from envs import snapshot
from envs.changes import BOUNDARIES, parse_changes
from envs.context import CONTEXTS, check_flat, extended, told
from envs.grammar import Timeline
from envs.halves import Result
from envs.kinds import layers_of
from envs.live import PREFIX, Live
from envs.parsing import choose, parse_count, parse_flag
from envs.world import World

CHANGE_POINT, CONTEXT = PREFIX + "change_point", PREFIX + "context"


class NonStationary(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Change an environment's physics, or what passes between it and the agent, on a schedule.

    Time t counts environment steps of all sub-environments together: each `step` adds `stride`, the number of
    sub-environments, so that every copy knows the time without a message. What is due at t is a pure function of
    (schedule_seed, t). Seeding by `reset(seed=...)` neither rewinds nor reseeds it; `reset(options={"schedule_clock":
    0})` sets the clock. Papers that count a period from the last change actually made (Slippery Ant's code) differ from
    us by a fraction of an episode each time.

    Every info, of `reset` and of `step`, has these keys (for logging; the agent does not see infos):
        nonstationary/<target> (float), nonstationary/regime (int): what was in force during that step, or is from that
            reset on; of a vector the float is a reading, such as its norm (see the target). The regime is the number of
            changes so far, summed over the targets; -1 while a value is pinned. A drift moves the float alone.
        nonstationary/change_point (bool): True where a new regime is in force for the first time: at the reset that
            brought it, and at the first step taken under it. The first regime, and moves of the clock, are no changes.

    Args:
        env: any Gymnasium environment.
        changes: one change or a list of them, see `parse_changes`: `{"target": "friction", "when": "every:2e6",
            "to": "loguniform:0.02,2.0", "first": "draw"}`, or for short `friction=every:2e6|loguniform:0.02,2.0|draw`.
            A target is the name of a built-in one, or a user's own object or class (see `Target`).
        schedule_seed: the seed of the schedules, an integer >= 0; separate from the environment's.
        stride: how many environment steps pass for each step of this one: the number of sub-environments.
        boundary: where a change that is due takes effect, unless the change says otherwise.
            `episode`: at this environment's first reset afterwards (the published rule).
            `step`: before the next step.
            `truncate`: the episode ends at once, as truncated and never as terminated, its last observation still of
            the old regime; the new one begins with the reset.
            A drift moves on between steps, whatever is said here, unless its own change says `episode`.
        context: what the agent is told of the values in force for its next action, a vector in the order of `changes`,
            one number for each change or, of a target that takes vectors, `size` numbers. `hidden`: nothing. `info`:
            infos carry it as `nonstationary/context`, for algorithms that look there. `obs`: it is appended to the
            observation, which must be a flat Box of floats and remains one.
        count_resets: whether the reset after an episode counts as a step. True is right for gymnasium's vector
            environments in their default mode, where an autoreset takes up a whole vector step; False for all others
            (SB3's, and AutoresetMode.SAME_STEP).

    Raises:
        ValueError: a change that cannot be read, a quantity that this environment does not have, values outside the
            target's allowed range, an environment that is non-stationary already.
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        changes: Any,
        *,
        schedule_seed: int = 0,
        stride: int = 1,
        boundary: str = "episode",
        context: str = "hidden",
        count_resets: bool = False,
    ) -> None:
        self._changes = parse_changes(changes, schedule_seed=schedule_seed)
        RecordConstructorArgs.__init__(
            self,
            changes=[change.to_dict() for change in self._changes],
            schedule_seed=schedule_seed,
            stride=stride,
            boundary=boundary,
            context=context,
            count_resets=count_resets,
            _disable_deepcopy=True,  # a user's target may hold what cannot be copied
        )
        gym.Wrapper.__init__(self, env)
        if inner := [layer for layer in layers_of(env) if isinstance(layer, NonStationary)]:
            raise ValueError(
                "this environment is non-stationary already, and two clocks would drift apart: "
                f"give all changes to one NonStationary (it changes {', '.join(inner[0].schedules)})"
            )
        self._boundary = choose("'boundary'", boundary, BOUNDARIES)
        self._context = choose("'context'", context, CONTEXTS)
        self._stride = parse_count("stride", stride, minimum=1)
        self._count_resets = parse_flag("count_resets", count_resets)
        self._stepped = False  # whether a step has been taken since the last reset
        if context == "obs":
            check_flat(env.observation_space)
        self._world = World(self._changes, self._boundary, env)
        for live in self._world.lives:
            if callable(widened := getattr(live.target, "observation_space", None)):
                self.observation_space = widened(self.observation_space)
        if context == "obs":
            self.observation_space = extended(self.observation_space, self._world.lives)
        self._relabel(change_point=False)

    def step(self, action: Any) -> Result:
        """Step the environment, then let `stride` environment steps pass.

        Returns:
            observation, reward, terminated, truncated, info, as Gymnasium's; info says what was in force in this step.
        """
        return self.after_step(*self.env.step(self.before_step(action)))

    def before_step(self, action: Any) -> Any:
        """Return the action that the environment gets."""
        world = self._world
        for act in world.actions:
            action = act(action, world.clock)
        return action

    def after_step(
        self, observation: Any, reward: Any, terminated: bool, truncated: bool, info: dict[str, Any]
    ) -> Result:
        """Let `stride` environment steps pass; return what a step returns, given what the environment's own did."""
        world = self._world
        info.update(self._labels)
        self._labels[CHANGE_POINT] = False
        self._stepped = True
        world.clock += self._stride
        for see in world.observations:
            observation = see(observation, world.clock)
        for pay in world.rewards:
            reward = pay(reward, info)
        if world.clock >= world.next:
            self._relabel(change_point=world.enter(("step",)))
            truncated = truncated or (world.overdue() and not terminated)
        if self._context != "hidden":
            observation = self._tell(observation, info)
        return observation, reward, terminated, truncated, info

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Bring in what is due, then reset the environment.

        Args:
            seed: for the environment alone; the schedule neither rewinds nor changes.
            options: `schedule_clock` sets the clock first (0 rewinds); the other options go to the environment.
        """
        if self._count_resets and self._stepped:
            self._world.clock += self._stride
        self._stepped = False
        if options and "schedule_clock" in options:
            options = dict(options)
            self.set_clock(options.pop("schedule_clock"))
        world = self._world
        self._relabel(change_point=world.enter() or self._labels[CHANGE_POINT])
        for begin in world.begins:
            begin()
        observation, info = self.env.reset(seed=seed, options=options)
        for see in world.observations:
            observation = see(observation, world.clock)
        info.update(self._labels)
        if self._context != "hidden":
            observation = self._tell(observation, info)
        return observation, info

    @property
    def spec(self) -> EnvSpec | None:  # type: ignore[override]  # as gymnasium.Wrapper does
        """The environment's specification; `nondeterministic` where equal seeds mean other steps at another time."""
        spec = super().spec
        if spec is not None and self._world.restless:
            spec.nondeterministic = True
        return spec

    @property
    def clock(self) -> int:
        """The time t: environment steps so far, all sub-environments together."""
        return self._world.clock

    @property
    def lives(self) -> tuple[Live, ...]:
        """The changes at work, in their order: each with its target, its schedule and the value in force."""
        return tuple(self._world.lives)

    @property
    def schedules(self) -> dict[str, Timeline]:
        """The schedules and drifts, by the name of their target."""
        return {live.name: live.schedule for live in self._world.lives}

    def set_clock(self, step: int, stride: int | None = None) -> None:
        """Set the time, as a resumed run must: through `vec_env.env_method("set_clock", num_timesteps, stride=n_envs)`.

        Between a reset and the first step after it, what is due takes effect at once (an observation already handed out
        stays as it is). In the middle of an episode it waits for its boundary. Moving the clock is no change point.

        Args:
            step: the new time, an integer >= 0.
            stride: the number of sub-environments; None keeps the present one.
        """
        clock = parse_count("step", step)
        self._stride = self._stride if stride is None else parse_count("stride", stride, minimum=1)
        self._world.clock = clock
        self._catch_up()

    def due(self, step: int | None = None) -> dict[str, float | int]:
        """Return what the schedules say for time `step` (None: now), under the keys that infos have."""
        return self._world.due(step)

    def applied(self) -> dict[str, float | int]:
        """Return what is in force in this environment now, under the keys that infos have."""
        return self._world.applied()

    def pin(
        self,
        value: float | Sequence[float] | Mapping[str, float | Sequence[float]] | None = None,
        *,
        regime: int | None = None,
    ) -> None:
        """Freeze the physics, at once and until `unpin`; for evaluation copies. The clock runs on.

        Args:
            value: the value, or a dict of target -> value, the targets not named keeping theirs. A target that takes
                vectors is given all its entries, or one number for all.
            regime: instead, a regime of the schedule, as infos number it; drifts stop where it begins. With neither,
                what is in force is frozen.

        Raises:
            ValueError: both given, unknown names, values outside the target's range, a regime that never comes.
        """
        self._world.pin(value, regime)
        self._relabel(change_point=False)

    def unpin(self) -> None:
        """Follow the schedule again: at once before the first step of an episode, else at each change's boundary."""
        self._world.pinned = False
        self._catch_up()

    def _catch_up(self) -> None:
        entered = self._world.enter(("step",) if self._stepped else BOUNDARIES)
        self._relabel(change_point=self._labels[CHANGE_POINT] and not entered)

    def _relabel(self, *, change_point: bool) -> None:
        self._labels: dict[str, Any] = {**self._world.applied(), CHANGE_POINT: change_point}

    def _tell(self, observation: Any, info: dict[str, Any]) -> Any:
        values = told(self._world.lives)
        if self._context == "info":
            info[CONTEXT] = values
            return observation
        return np.concatenate([observation, values]).astype(self.observation_space.dtype)

    def state_dict(self) -> dict[str, Any]:
        """Return all that another wrapper, built the same way, needs to go on from here, the environment aside."""
        labels = dict(self._labels)
        return {"world": self._world.state_dict(), "stride": self._stride, "stepped": self._stepped, "labels": labels}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` returned; what is in force is written into the environment at once."""
        self._world.load_state_dict(state["world"])
        self._stride, self._stepped = state["stride"], state["stepped"]
        self._labels = dict(state["labels"])

    # Pickling and copying. The environment travels with nominal physics, since a MuJoCo one would lose the changes and
    # any other would keep them; see snapshot.py.

    def _state(self) -> dict[str, Any]:
        own = {key: value for key, value in vars(self).items() if key not in ("env", "_world")}
        return {"own": own, "world": self._world.state_dict()}

    def _revive(self, state: dict[str, Any], env: gym.Env[Any, Any], saved: dict[str, Any]) -> None:
        vars(self).update(state["own"], env=env)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # said when the original was built
            self._world = World(self._changes, self._boundary, env)
        self._world.load_state_dict(state["world"])
        snapshot.load(env, saved)

    def _nominal(self, how: Callable[[gym.Env[Any, Any]], Any]) -> Any:
        """Return how(env) while the environment is nominal."""
        for live in self._world.lives:
            live.target.restore()
        try:
            return how(self.env)
        finally:
            for live in self._world.lives:
                live.put(live.regime, live.span, live.value)

    def __getstate__(self) -> dict[str, Any]:
        return {**self._state(), "env": self._nominal(pickle.dumps), "saved": snapshot.save(self.env)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._revive(state, pickle.loads(state["env"]), state["saved"])

    def __deepcopy__(self, memo: dict[int, Any]) -> NonStationary:
        twin = type(self).__new__(type(self))
        memo[id(self)] = twin
        env = self._nominal(lambda env: copy.deepcopy(env, memo))
        twin._revive(copy.deepcopy(self._state(), memo), env, copy.deepcopy(snapshot.save(self.env), memo))
        return twin
