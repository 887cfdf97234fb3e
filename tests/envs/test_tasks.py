"""The registered environments: checkers, specs, keyword arguments."""

import re
import subprocess
import sys
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as check_env_sb3

import envs
from envs import NonStationary, make_nonstationary


def stack(env: gym.Env) -> list[str]:
    names = []
    while isinstance(env, gym.Wrapper):
        names.append(type(env).__name__)
        env = env.env
    return [*names, type(env).__name__]


# The checkers' advice that concerns the wrapper, which is what we check; and the original environments' spaces.
@pytest.mark.filterwarnings("ignore:.*is different from the unwrapped version:UserWarning")
@pytest.mark.filterwarnings("ignore:.*Box observation space m.*imum value is .*infinity:UserWarning")  # Ant-v5's
@pytest.mark.filterwarnings("ignore:.*For Box action spaces, we recommend:UserWarning")  # Pendulum-v1's
@pytest.mark.filterwarnings("ignore:.*recommend you to use a symmetric and normalized:UserWarning")  # the same, by SB3
@pytest.mark.parametrize("id", envs.TASKS)
@pytest.mark.parametrize("context", ["hidden", "obs"])
@pytest.mark.parametrize("boundary", ["episode", "step", "truncate"])
def test_both_checkers_pass(id: str, context: str, boundary: str) -> None:
    env = gym.make(id, context=context, boundary=boundary, period=7)
    check_env(env, skip_render_check=True)
    check_env_sb3(gym.make(id, context=context, boundary=boundary, period=7))


@pytest.mark.parametrize("id", envs.TASKS)
def test_a_spec_rebuilds_the_same_stack_from_json(id: str) -> None:
    env = gym.make(id, period=50, schedule_seed=7, boundary="truncate", context="obs", stride=3)
    rebuilt = gym.make(EnvSpec.from_json(env.spec.to_json()))  # type: ignore[union-attr]
    assert stack(rebuilt) == stack(env)
    assert stack(env).count("NonStationary") == 1
    assert rebuilt.spec == env.spec
    assert env.spec is not None
    assert env.spec.id == id
    for e in (env, rebuilt):
        e.reset(seed=0)
    for _ in range(30):
        ours, theirs = (e.step(env.action_space.sample() * 0) for e in (env, rebuilt))
        np.testing.assert_array_equal(ours[0], theirs[0])
        assert ours[1:] == theirs[1:]
        if ours[2] or ours[3]:
            break


def test_any_registered_environment_becomes_non_stationary_and_its_spec_rebuilds_it() -> None:
    changes = [{"target": "gravity", "when": "every:5e4", "to": "uniform:0.5,1.5"}]
    env = make_nonstationary("Hopper-v5", changes, schedule_seed=3, reset_noise_scale=0.0)
    rebuilt = gym.make(EnvSpec.from_json(env.spec.to_json()))  # type: ignore[union-attr]
    assert (
        stack(env)
        == stack(rebuilt)
        == ["NonStationary", "TimeLimit", "OrderEnforcing", "PassiveEnvChecker", "HopperEnv"]
    )
    assert rebuilt.due(10**6) == env.due(10**6)  # type: ignore[attr-defined]
    assert rebuilt.spec == env.spec


@pytest.mark.parametrize(
    ("id", "like"), [("SlipperyAnt-v5", "Ant-v5"), ("NSCartPole-v1", "CartPole-v1"), ("NSPendulum-v1", "Pendulum-v1")]
)
def test_limits_and_spaces_are_those_of_the_environment_it_starts_from(id: str, like: str) -> None:
    ours, theirs = gym.make(id), gym.make(like)
    assert ours.spec is not None
    assert theirs.spec is not None
    assert ours.spec.max_episode_steps == theirs.spec.max_episode_steps
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    assert [name for name in stack(ours) if name != "NonStationary"] == stack(theirs)


def clocked(env: gym.Env) -> NonStationary:
    while not isinstance(env, NonStationary):
        env = env.env  # type: ignore[attr-defined]
    return env


def test_slippery_ant_is_the_published_task() -> None:
    env = clocked(gym.make("SlipperyAnt-v5", schedule_seed=7))
    (schedule,) = env.schedules.values()
    assert str(schedule) == "every:2000000|loguniform:0.02,2.0|draw"
    assert env.due(1_999_999) == env.due(0) != env.due(2_000_000)
    frictions = [env.due(k * 2_000_000)["nonstationary/friction"] for k in range(11)]
    assert len(set(frictions)) == 11
    assert set(env.unwrapped.model.geom_friction[:, 0]) == {frictions[0]}  # type: ignore[attr-defined]
    assert clocked(gym.make("SlipperyAnt-v5", schedule_seed=8)).due() != env.due()
    # Pinned, so that a run of today can be repeated by tomorrow's version.
    assert frictions[:3] == pytest.approx(FRICTIONS_OF_SEED_7, rel=1e-12)


FRICTIONS_OF_SEED_7 = [1.3165355079820464, 0.18344664997474178, 0.7343578861724769]


def test_slippery_ants_keyword_arguments(tmp_path: Any) -> None:
    (tmp_path / "table.csv").write_text("0,0.1\n1000,0.7\n")
    env = clocked(gym.make("SlipperyAnt-v5", table=str(tmp_path / "table.csv"), legacy_obs=True, ctrl_cost_weight=0.25))
    assert [env.due(t)["nonstationary/friction"] for t in (0, 999, 1000)] == [0.1, 0.1, 0.7]
    assert env.observation_space.shape == (27,)
    assert env.unwrapped._ctrl_cost_weight == 0.25  # type: ignore[attr-defined]
    env = clocked(gym.make("SlipperyAnt-v5", period="5e2", to="uniform:1,2", first="nominal"))
    assert env.due(499)["nonstationary/friction"] == 1.0
    assert env.observation_space.shape == (105,)


@pytest.mark.parametrize(
    ("id", "kwargs", "message"),
    [
        ("SlipperyAnt-v5", {"perod": 500}, 'unknown keyword of AntEnv "perod"'),
        ("SlipperyAnt-v5", {"perod": 500}, 'did you mean "period"?'),
        ("SlipperyAnt-v5", {"period": "often"}, "the period in when: every must be a whole number >= 1"),
        ("NSCartPole-v1", {"target": "lenght"}, 'did you mean "length"?'),
        (
            "NSPendulum-v1",
            {"boundary": "sometimes"},
            "unknown 'boundary' \"sometimes\": allowed are episode, step, truncate",
        ),
    ],
)
def test_errors_teach(id: str, kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        gym.make(id, **kwargs)


def test_importing_envs_needs_neither_torch_nor_mujoco() -> None:
    code = (
        "import sys, envs, gymnasium; gymnasium.make('NSCartPole-v1'); gymnasium.make('NSPendulum-v1')\n"
        "print([name for name in ('torch', 'stable_baselines3', 'mujoco') if name in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_every_public_name_is_documented() -> None:
    for name in envs.__all__:
        assert name == "TASKS" or getattr(envs, name).__doc__


def test_slippery_ant_is_about_friction_alone() -> None:
    with pytest.raises(ValueError, match=r"takes no target, got 'gravity'; for other quantities wrap Ant-v5"):
        gym.make("SlipperyAnt-v5", target="gravity")
