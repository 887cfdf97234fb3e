"""Environments that raise, or return what is no number or too large a one: what the guard makes of it."""

from __future__ import annotations

import math
import re
import traceback
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize, unwrap_vec_wrapper

from experiments.compose import compose
from experiments.environment import make_vec_env
from experiments.errors import EnvironmentFailure, NumericFailure
from experiments.failure_report import FailureReport
from experiments.guard import Guard
from experiments.run_settings import GuardSettings
from experiments.schema import validate
from experiments.workers import Workers

BOX = gym.spaces.Box(-9.0, 9.0, (3,), np.float32)


class Played(gym.Env[Any, Any]):
    """Plays a script: at step t the keys of script[t] take the place of what is ordinary; 0 is the first reset."""

    action_space = gym.spaces.Discrete(2)

    def __init__(self, script: dict[int, dict[str, Any]] | None = None, space: gym.Space[Any] = BOX):
        self.script, self.observation_space, self.t = script or {}, space, 0
        self.called = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.called += 1
        now = self.script.get(self.t, {})
        if "reset" in now:
            raise now["reset"]
        return now.get("first", self.ordinary()), {}

    def step(self, action: Any) -> Any:
        self.t, self.called = self.t + 1, self.called + 1
        now = self.script.get(self.t, {})
        if "step" in now:
            raise now["step"]
        observation = now.get("observation", self.ordinary())
        return observation, now.get("reward", 1.0), now.get("done", False), False, dict(now.get("info", {}))

    def ordinary(self) -> Any:
        return self.observation_space.sample() if not isinstance(self.observation_space, gym.spaces.Box) else (
            np.full(self.observation_space.shape, self.t % 200, self.observation_space.dtype)
        )  # fmt: skip


def guarded(script: dict[int, dict[str, Any]], space: gym.Space[Any] = BOX, **settings: Any) -> Guard:
    """Three sub-environments in this process; the one with the script is number 1."""
    scripts = [{}, script, {}]
    venv = DummyVecEnv([lambda script=script: FailureReport(Monitor(Played(script, space))) for script in scripts])
    return Guard(venv, GuardSettings(**settings))


def run(guard: Guard, steps: int) -> list[Any]:
    guard.reset()
    return [guard.step(np.zeros(3, int)) for _ in range(steps)]


def vector(*numbers: float) -> np.ndarray:
    return np.array(numbers, np.float32)


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        ({3: {"observation": vector(0, math.nan, 0)}}, "returned nan in observation[1] at environment step 9"),
        ({3: {"observation": vector(0, 0, -math.inf)}}, "returned -inf in observation[2] at environment step 9"),
        ({0: {"first": vector(math.nan, 0, 0)}}, "returned nan in observation[0] at environment step 0"),
        ({2: {"done": True, "first": vector(0, math.inf, 0)}}, "returned inf in observation[1] at environment step 6"),
        ({2: {"done": True, "observation": vector(0, 0, math.nan)}},
         "returned nan in last observation of an episode[2] at environment step 6"),
        ({4: {"reward": math.nan}}, "returned nan as reward at environment step 12"),
        ({4: {"reward": -math.inf}}, "returned -inf as reward at environment step 12"),
        ({4: {"reward": 1e30}}, "returned 1e+30 as reward at environment step 12, and run.guard.reward_limit is 1e+06; "
         "raise it, or set run.guard.reward=clip to clip such rewards and count them"),
        ({4: {"reward": -1.1e6}}, "returned -1.1e+06 as reward at environment step 12, and run.guard.reward_limit is "
         "1e+06; raise it, or set run.guard.reward=clip to clip such rewards and count them"),
    ],
)  # fmt: skip
def test_what_is_no_number_is_named_with_its_place(script: dict[int, Any], sentence: str) -> None:
    with pytest.raises(NumericFailure) as caught:
        run(guarded(script), 5)
    assert str(caught.value) == f"sub-environment 1 {sentence}"
    assert caught.value.exit_code == 3


def test_nothing_finite_is_refused_or_changed() -> None:
    extremes = {1: {"observation": vector(3e38, -3e38, 1e-45), "reward": 1e6}, 2: {"reward": -1e6, "done": True}}
    script = {0: {}, **extremes}
    bare = DummyVecEnv([lambda script=script: Monitor(Played(script)) for script in [{}, script, {}]])
    guard = guarded(script)
    np.testing.assert_array_equal(guard.reset(), bare.reset())
    for _ in range(4):
        for ours, theirs in zip(guard.step(np.zeros(3, int))[:3], bare.step(np.zeros(3, int))[:3], strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert guard.counts == {"guard/clipped_rewards": 0, "guard/unstable_physics": 0}
    assert guard.summary() == []
    assert guard.steps == 12


@pytest.mark.parametrize(
    ("space", "observation", "where"),
    [
        (gym.spaces.Box(-1, 1, (2, 2), np.float64), np.array([[0, 0], [math.nan, 0]]), "[1, 0]"),
        (gym.spaces.Dict(a=gym.spaces.Discrete(3), b=gym.spaces.Box(-1, 1, (2,))), {"a": 1, "b": vector(0, math.nan)},
         "['b'][1]"),
        (gym.spaces.Tuple([gym.spaces.Discrete(3), gym.spaces.Box(-1, 1, (2,))]), (1, vector(math.nan, 0)), "[1][0]"),
    ],
)  # fmt: skip
def test_observations_of_other_spaces(space: gym.Space[Any], observation: Any, where: str) -> None:
    run(guarded({}, space), 2)
    with pytest.raises(NumericFailure, match=re.escape(f"nan in observation{where} at")):
        run(guarded({2: {"observation": observation}}, space), 2)
    with pytest.raises(NumericFailure, match=re.escape(f"nan in last observation of an episode{where} at")):
        run(guarded({2: {"observation": observation, "done": True}}, space), 2)
    with pytest.raises(EnvironmentFailure, match="ValueError: bad"):
        run(guarded({2: {"step": ValueError("bad")}}, space), 2)


def test_images_and_integers_are_not_looked_at() -> None:
    run(guarded({}, gym.spaces.Box(0, 255, (8, 8, 3), np.uint8)), 2)
    run(guarded({}, gym.spaces.Discrete(5)), 2)


def test_rewards_are_clipped_and_counted_where_that_is_asked_for() -> None:
    guard = guarded({2: {"reward": 1e30}, 3: {"reward": -50.0, "done": True}}, reward="clip", reward_limit=10.0)
    rewards = [step[1].tolist() for step in run(guard, 4)]
    assert rewards == [[1, 1, 1], [1, 10, 1], [1, -10, 1], [1, 1, 1]]
    assert guard.counts["guard/clipped_rewards"] == 2
    assert guard.summary() == ["2 rewards were outside [-10, 10] and clipped (run.guard.reward=clip)"]


@pytest.mark.parametrize("vector", [DummyVecEnv, Workers])
def test_a_reward_too_large_for_float32_is_infinite_in_both_vectors(vector: Any) -> None:
    guard = Guard(vector([lambda: Played({1: {"reward": 1e39}})]), GuardSettings(reward="clip"))
    guard.reset()
    with pytest.raises(NumericFailure, match=r"returned (inf|1e\+39) as reward"), np.errstate(over="ignore"):
        guard.step(np.zeros(1, int))
    guard.close()


@pytest.mark.parametrize(
    ("script", "steps"),
    [
        ({3: {"step": ValueError("the floor  is\nlava")}}, 3),
        ({2: {"done": True, "reset": ValueError("the floor  is\nlava")}}, 2),
        ({0: {"reset": ValueError("the floor  is\nlava")}}, 0),
    ],
)
@pytest.mark.parametrize("vector", [DummyVecEnv, Workers])
def test_an_environment_that_raises_is_named(script: dict[int, Any], steps: int, vector: Any) -> None:
    guard = Guard(vector([lambda s=s: FailureReport(Monitor(Played(s))) for s in ({}, script)]), GuardSettings())
    if steps:
        guard.reset()
        for _ in range(steps - 1):
            guard.step(np.zeros(2, int))
    with pytest.raises(EnvironmentFailure) as caught:
        guard.step(np.zeros(2, int)) if steps else guard.reset()
    guard.close()
    assert str(caught.value) == "sub-environment 1 raised ValueError: the floor is lava"
    place = 'raise now["step"]' if steps == 3 else 'raise now["reset"]'
    assert place in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("vector_class", [DummyVecEnv, Workers])
def test_observations_of_another_shape_are_the_environments_failure(vector_class: Any) -> None:
    scripts = ({}, {1: {"observation": vector(0, 0)}})
    guard = Guard(vector_class([lambda s=s: Played(s) for s in scripts]), GuardSettings())
    guard.reset()
    with pytest.raises(EnvironmentFailure, match="what the sub-environments returned cannot be used: ValueError"):
        guard.step(np.zeros(2, int))
    guard.close()


def test_a_failed_environment_is_not_called_again() -> None:
    inner = Played({1: {"step": RuntimeError()}})
    env = FailureReport(inner)
    env.reset()
    observation, reward, terminated, truncated, info = env.step(0)
    assert (observation.tolist(), reward, terminated, truncated) == ([0, 0, 0], 0.0, False, True)
    assert observation.dtype == np.float32
    assert info["failure"].sentence == "RuntimeError"
    assert env.reset()[1] == env.step(0)[4] == info
    assert inner.called == 2


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_the_end_of_the_process_is_no_failure_of_the_environment(error: type[BaseException]) -> None:
    env = FailureReport(Played({1: {"step": error()}}))
    env.reset()
    with pytest.raises(error):
        env.step(0)


def test_unstable_physics_is_counted_and_has_an_end() -> None:
    cut = {"done": True, "info": {"unstable_physics": True}}
    guard = guarded({1: cut, 3: cut, 5: cut}, unstable_physics=2)
    run(guard, 4)
    assert guard.counts["guard/unstable_physics"] == 2
    assert guard.summary() == ["2 episodes were cut because the simulation became unstable"]
    with pytest.raises(EnvironmentFailure) as caught:
        guard.step(np.zeros(3, int))
    assert str(caught.value) == (
        "the simulation became unstable in 3 episodes, the last in sub-environment 1 at environment step 15, and "
        "run.guard.unstable_physics allows 2"
    )


def test_counts_go_on_in_another_guard() -> None:
    first = guarded({1: {"reward": 2e6, "done": True, "info": {"unstable_physics": True}}}, reward="clip")
    run(first, 2)
    second = guarded({1: {"reward": 2e6}, 2: {"reward": math.nan}}, reward="clip")
    second.reset()
    second.load_state_dict(first.state_dict())
    second.step(np.zeros(3, int))
    assert second.counts == {"guard/clipped_rewards": 2, "guard/unstable_physics": 1}
    with pytest.raises(NumericFailure, match="at environment step 12"):
        second.step(np.zeros(3, int))


@pytest.mark.parametrize("words", [[], ["env.vectorization=subproc"], ["env.normalize_observations=true"]])
def test_runs_have_it_under_normalisation(words: list[str]) -> None:
    composed = compose(["env=ns_pendulum", "env.n_envs=2", "run.guard.reward_limit=5", "agent=ppo", *words])
    venv = make_vec_env(validate(composed.tree))
    guard = unwrap_vec_wrapper(venv, Guard)
    assert isinstance(guard, Guard)
    assert guard.settings.reward_limit == 5
    assert isinstance(guard.venv, Workers if "env.vectorization=subproc" in words else DummyVecEnv)
    assert guard.env_is_wrapped(FailureReport) == guard.env_is_wrapped(Monitor) == [True, True]
    assert isinstance(venv, VecNormalize) == ("env.normalize_observations=true" in words)
    with pytest.raises(NumericFailure, match=r"run\.guard\.reward_limit is 5"):
        run_to(200, venv)
    venv.close()


def run_to(steps: int, venv: Any) -> None:
    venv.reset()
    for _ in range(steps):
        venv.step(np.zeros((2, 1), np.float32))
