"""`BatchedVecEnv` against SB3's DummyVecEnv: all that a step returns, episodes' ends, checkpoints in the middle."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from agents import PPO, BatchedVecEnv, RegimeClock
from agents.batched import why_not
from envs import Checkpointable, NonStationary, stable_physics
from envs.checkpointable import same

Env = gym.Env[Any, Any]
RECORDS = ("episode_returns", "episode_lengths", "episode_times", "t_start")
IDS = [f"Slippery{name}-v5" for name in ("Ant", "HalfCheetah", "Humanoid", "Hopper", "Walker2d")]


def wrapped(env: Env, **kwargs: Any) -> Env:
    return Checkpointable(Monitor(stable_physics(env), **kwargs), leave=RECORDS)


def slippery(name: str, n: int = 3, **kwargs: Any) -> Callable[[], Env]:
    return lambda: wrapped(gym.make(name, stride=n, **{"period": 150, "max_episode_steps": 40} | kwargs))


def both(make: Callable[[], Env], n: int = 3, threads: int | None = None) -> tuple[DummyVecEnv, BatchedVecEnv]:
    dummy, batched = DummyVecEnv([make] * n), BatchedVecEnv([make] * n, threads)
    for venv in (dummy, batched):
        venv.seed(0)
    assert same(dummy.reset(), batched.reset())
    return dummy, batched


def compare(one: VecEnv, other: VecEnv, steps: int, seed: int = 0, low: float = -1.0) -> list[dict[str, Any]]:
    """Step both with the same actions; return the infos of the first where episodes ended."""
    rng, space, ends = np.random.default_rng(seed), one.action_space, []
    for _ in range(steps):
        actions = rng.uniform(low, 1, (one.num_envs, *space.shape)).astype(np.float32) * space.high  # type: ignore[attr-defined,misc]
        expected, got = one.step(actions), other.step(actions)
        assert same(expected, got), (expected, got)
        assert [list(info) for info in expected[3]] == [list(info) for info in got[3]]
        for index in np.flatnonzero(expected[2]):
            assert same(one.reset_infos[index], other.reset_infos[index])
        ends += [info for info, done in zip(expected[3], expected[2], strict=True) if done]
    return ends


@pytest.mark.parametrize("name", IDS)
def test_all_that_a_step_returns(name: str) -> None:
    ends = compare(*both(slippery(name)), 90)
    assert all("terminal_observation" in info and "r" in info["episode"] for info in ends)
    assert ends


def test_the_time_limit_is_told() -> None:
    ends = compare(*both(slippery("SlipperyHalfCheetah-v5")), 90)
    assert [info["TimeLimit.truncated"] for info in ends] == [True] * 6
    ends = compare(*both(slippery("SlipperyHopper-v5", max_episode_steps=1_000)), 60)
    assert {info["TimeLimit.truncated"] for info in ends} == {False}
    ends = compare(*both(slippery("SlipperyHopper-v5", max_episode_steps=1, healthy_z_range=(5, 6))), 3)
    assert {info["TimeLimit.truncated"] for info in ends} == {False}  # terminated too


def test_what_the_monitor_of_sb3_keeps(tmp_path: Any) -> None:
    def make() -> Env:
        return wrapped(gym.make("Hopper-v5"), info_keywords=("x_position",))

    dummy, batched = both(make)
    ends = compare(dummy, batched, 60)
    assert ends[0]["episode"].keys() >= {"r", "l", "t", "x_position"}
    for name in ("get_episode_rewards", "get_episode_lengths", "get_total_steps"):
        assert dummy.env_method(name) == batched.env_method(name)


def test_what_was_returned_stays_as_it_was() -> None:
    _, batched = both(slippery("SlipperyAnt-v5"))
    observations, rewards, dones, infos = batched.step(np.zeros((3, 8), np.float32))
    kept = observations.copy(), rewards.copy(), dones.copy(), [dict(info) for info in infos]
    batched.step(np.ones((3, 8), np.float32))
    assert same((observations, rewards, dones, infos), kept)


def test_everything_else_goes_to_the_environments() -> None:
    dummy, batched = both(slippery("SlipperyAnt-v5", boundary="step"))
    for venv in (dummy, batched):
        venv.env_method("pin", 0.3, indices=[1])
    compare(dummy, batched, 20)
    for venv in (dummy, batched):
        venv.env_method("unpin", indices=[1])
        venv.env_method("set_clock", 10_000)
    compare(dummy, batched, 20, seed=1)
    assert same(dummy.env_method("applied"), batched.env_method("applied"))
    assert batched.env_is_wrapped(Monitor) == [True] * 3
    for venv in (dummy, batched):
        venv.seed(7)
        venv.set_options({"schedule_clock": 0})
    assert same(dummy.reset(), batched.reset())
    compare(dummy, batched, 20, seed=2)


@pytest.mark.parametrize("name", ["SlipperyAnt-v5", "SlipperyHumanoid-v5"])
@pytest.mark.parametrize("back", [False, True])
def test_checkpoints_go_from_one_kind_into_the_other(name: str, back: bool) -> None:
    source, target = reversed(both(slippery(name))) if back else both(slippery(name))
    rng = np.random.default_rng(1)
    for _ in range(25):  # the other one stays behind
        source.step(rng.uniform(-0.4, 0.4, (3, *source.action_space.shape)).astype(np.float32))  # type: ignore[misc]
    for index, state in enumerate(source.env_method("state_dict")):
        assert state["missing"] == []
        assert target.env_method("load_state_dict", state, indices=[index]) == [None]
    assert compare(source, target, 60)


def test_observations_keep_the_type_of_their_space() -> None:
    def make() -> Env:
        env = NonStationary(
            gym.make("Hopper-v5"), "observation_offset=every:50|gaussian_vector:1.0|draw", context="obs"
        )
        return wrapped(env)

    dummy, batched = both(make)
    assert batched.step(np.zeros((3, 3), np.float32))[0].dtype == dummy.observation_space.dtype == np.float64
    dummy.step(np.zeros((3, 3), np.float32))
    compare(dummy, batched, 30)


def test_where_there_is_a_compiler_simulations_are_compiled_too() -> None:
    import mujoco

    from envs.native_physics import LIBRARY
    from plasticity.native import NATIVE

    assert (LIBRARY is not None) == (bool(NATIVE) and mujoco.mj_version() // 1_000_000 == 4)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("native", [True, False])
def test_a_copy_has_environments_of_its_own(threads: int, native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from envs import batched_physics

    if not native:
        monkeypatch.setattr(batched_physics, "LIBRARY", None)
    dummy, batched = both(slippery("SlipperyHopper-v5"), threads=threads)
    compare(dummy, batched, 10)
    others, copied = deepcopy(dummy), deepcopy(batched)
    compare(dummy, batched, 45)  # over the time limit, which the copies are not to notice
    compare(others, copied, 45, seed=1)
    compare(dummy, batched, 5)


def test_an_agent_learns_the_same() -> None:
    weights = []
    for kind in (DummyVecEnv, BatchedVecEnv):
        venv = kind([slippery("SlipperyAnt-v5", n=2)] * 2)
        model = PPO("MlpPolicy", venv, n_steps=32, batch_size=32, n_epochs=2, seed=0, device="cpu", plasticity="cbp")
        weights.append(model.learn(128, callback=RegimeClock()).policy.state_dict())
    assert all((one == other).all() for one, other in zip(*(w.values() for w in weights), strict=True))


def test_why_not() -> None:
    assert why_not([slippery("SlipperyAnt-v5")()]) is None
    assert "CartPoleEnv is none of" in str(why_not([wrapped(gym.make("CartPole-v1"))]))
    with pytest.raises(ValueError, match="CartPoleEnv is none of"):
        BatchedVecEnv([lambda: wrapped(gym.make("CartPole-v1"))])


def test_closing_ends_the_environments_and_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    from envs import batched_physics

    monkeypatch.setattr(batched_physics, "LIBRARY", None)  # whose threads are for all, and stay
    _, batched = both(slippery("SlipperyHopper-v5"), threads=3)
    batched.step(np.zeros((3, 3), np.float32))
    before = threading.active_count()
    batched.close()
    for thread in threading.enumerate():
        if thread.name.startswith("crew-"):
            thread.join(5)
    assert threading.active_count() < before


@pytest.mark.slow
def test_eight_worlds_of_different_friction_for_long() -> None:
    def make(index: int) -> Env:
        change = {"target": "friction", "when": "every:30000", "to": "loguniform:0.02,2.0", "first": "draw"}
        return wrapped(NonStationary(gym.make("Ant-v5"), change, schedule_seed=index, stride=8))

    makers = [lambda index=index: make(index) for index in range(8)]
    dummy, batched = DummyVecEnv(makers), BatchedVecEnv(makers)
    for venv in (dummy, batched):
        venv.seed(0)
    assert same(dummy.reset(), batched.reset())
    ends = compare(dummy, batched, 5_000)
    assert len({info["nonstationary/friction"] for info in ends}) >= 8
