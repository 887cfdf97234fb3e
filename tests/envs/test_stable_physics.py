"""Episodes whose simulation breaks down are cut and named; all others are untouched."""

import copy
import pickle
from pathlib import Path
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
import pytest

from envs import NonStationary, StablePhysics, stable_physics
from envs.checkpointable import same
from envs.stable_physics import BAD, UNSTABLE, _quieten


def make() -> Any:
    return stable_physics(gym.make("Hopper-v5", max_episode_steps=50, disable_env_checker=True))


def broken(env: Any) -> tuple[Any, ...]:
    """Take a step in which the simulation breaks down."""
    env.unwrapped.data.qvel[:] = 1e11
    return tuple(env.step(np.zeros(3, np.float32)))


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_an_episode_whose_physics_break_down_is_cut_quietly(tmp_path: Path, capfd: Any) -> None:
    env = make()
    env.reset(seed=0)
    env.step(env.action_space.sample())
    for _ in range(2):  # MuJoCo itself warns the first time alone
        observation, reward, terminated, truncated, info = broken(env)
        assert info[UNSTABLE] == "mjWARN_BADQVEL"
        assert (reward, terminated, truncated) == (0.0, False, True)
        assert np.isfinite(observation).all()
        env.reset()
        *_, truncated, info = env.step(np.zeros(3, np.float32))
        assert not truncated
        assert UNSTABLE not in info
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_without_it_mujoco_goes_on_and_the_reward_is_for_a_jump(monkeypatch: pytest.MonkeyPatch) -> None:
    env = gym.make("Hopper-v5")
    env.reset(seed=0)
    *_, truncated, info = broken(env)
    assert not truncated
    assert UNSTABLE not in info
    assert env.unwrapped.data.warning.number[4] > 0  # type: ignore[attr-defined]


def test_a_bad_control_and_a_simulation_that_does_not_begin_anew() -> None:
    env = make()
    env.reset(seed=0)
    *_, info = env.step(np.full(3, np.nan, np.float32))
    assert info[UNSTABLE] == "mjWARN_BADCTRL"
    env.reset()
    env.unwrapped.model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET
    env.unwrapped.data.qpos[:] = np.nan
    observation, reward, terminated, truncated, info = env.step(np.zeros(3, np.float32))
    assert "mjWARN_BADQPOS" in info[UNSTABLE]
    assert np.isfinite(observation).all()
    assert (reward, terminated, truncated) == (0.0, False, True)


def test_the_names_are_mujocos_and_follow_one_another() -> None:
    numbers = [getattr(mujoco.mjtWarning, name).value for name in BAD]
    assert numbers == list(range(numbers[0], numbers[0] + 4))


@pytest.mark.parametrize("id", ["Ant-v5", "Humanoid-v5", "Reacher-v5"])
def test_a_stable_run_is_untouched(id: str) -> None:
    plain, wrapped = gym.make(id), stable_physics(gym.make(id))
    assert isinstance(wrapped, StablePhysics)
    assert same(plain.reset(seed=3), wrapped.reset(seed=3))
    plain.action_space.seed(0)
    for _ in range(60):
        action = plain.action_space.sample()
        ours, theirs = wrapped.step(action), plain.step(action)
        assert same(ours, theirs)
        if ours[2]:
            assert same(plain.reset(), wrapped.reset())


def test_copies_watch_their_own_simulation() -> None:
    env = stable_physics(NonStationary(gym.make("Hopper-v5"), "gravity=every:50|uniform:0.5,1.5"))
    env.reset(seed=0)
    for twin in (copy.deepcopy(env), pickle.loads(pickle.dumps(env))):
        *_, info = broken(twin)
        assert UNSTABLE in info
        *_, info = env.step(np.zeros(3, np.float32))
        assert UNSTABLE not in info


def test_other_environments_are_left_as_they_are() -> None:
    env = gym.make("CartPole-v1")
    assert stable_physics(env) is env


def test_a_handler_of_the_users_own_stays() -> None:
    before, heard = mujoco.get_mju_user_warning(), []
    mujoco.set_mju_user_warning(heard.append)
    _quieten.cache_clear()
    try:
        env = make()
        env.reset(seed=0)
        *_, info = broken(env)
        assert UNSTABLE in info
        assert len(heard) == 1
    finally:
        mujoco.set_mju_user_warning(before)
