"""The registered tasks: each with both checkers, its spec, vectors of each kind and seeds; their keyword arguments."""

import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AsyncVectorEnv
from stable_baselines3.common.env_checker import check_env as check_env_sb3
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

import envs
from envs import TASKS, NonStationary, make_nonstationary
from envs.changes import BOUNDARIES

BOX2D = importlib.util.find_spec("Box2D") is not None and importlib.util.find_spec("pygame") is not None
SEQUENCES = [id for id, row in TASKS.items() if row.base not in gym.registry]


def needs(id: str) -> Any:
    missing = TASKS[id].base.startswith("LunarLander") and not BOX2D
    return pytest.param(id, marks=pytest.mark.skipif(missing, reason='needs "pliant-rl[box2d]"'))


IDS = [needs(id) for id in TASKS]


def make(id: str, **kwargs: Any) -> gym.Env:
    """The task with short regimes; sequences, whose tasks begin with resets, truncate where others change at a step."""
    if id in SEQUENCES and kwargs.get("boundary") == "step":
        kwargs["boundary"] = "truncate"
    return gym.make(id, **{"period": 7, "schedule_seed": 7, **kwargs})


def stack(env: gym.Env) -> list[str]:
    names = []
    while isinstance(env, gym.Wrapper):
        names.append(type(env).__name__)
        env = env.env
    return [*names, type(env).__name__]


def clocked(env: gym.Env) -> NonStationary:
    while not isinstance(env, NonStationary):
        env = env.env  # type: ignore[attr-defined]
    return env


def plain(row: Any) -> Any:
    """What can be compared with ==, of a step's or a reset's results."""
    return json.loads(json.dumps(row, default=lambda value: value.tolist()))


# The checkers' advice that concerns the wrapper, which is what we check; and the original environments' spaces.
@pytest.mark.filterwarnings("ignore:.*is different from the unwrapped version:UserWarning")
@pytest.mark.filterwarnings("ignore:.*Box observation space m.*imum value is .*infinity:UserWarning")
@pytest.mark.filterwarnings("ignore:.*For Box action spaces, we recommend:UserWarning")
@pytest.mark.filterwarnings("ignore:.*recommend you to use a symmetric and normalized:UserWarning")  # the same, by SB3
@pytest.mark.parametrize("id", IDS)
@pytest.mark.parametrize("context", ["hidden", "info", "obs"])
@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_both_checkers_pass(id: str, boundary: str, context: str) -> None:
    if id in SEQUENCES and context == "obs":
        context = "info"  # the lake's observations are numbers of places, to which nothing can be appended
    check_env(make(id, boundary=boundary, context=context), skip_render_check=True)
    check_env_sb3(make(id, boundary=boundary, context=context))


@pytest.mark.parametrize("id", IDS)
def test_a_spec_rebuilds_the_same_stack_from_json(id: str) -> None:
    context = "hidden" if id in SEQUENCES else "obs"
    env = gym.make(id, period=50, schedule_seed=7, boundary="truncate", context=context, stride=3)
    rebuilt = gym.make(EnvSpec.from_json(env.spec.to_json()))  # type: ignore[union-attr]
    assert stack(rebuilt) == stack(env)
    assert stack(env).count("NonStationary") == 1
    assert rebuilt.spec == env.spec
    assert env.spec is not None
    assert env.spec.id == id
    assert env.spec.nondeterministic == id.startswith("Drifting")
    assert plain([e.reset(seed=0) for e in (env,)]) == plain([e.reset(seed=0) for e in (rebuilt,)])
    env.action_space.seed(0)
    for _ in range(30):
        action = env.action_space.sample()
        ours, theirs = env.step(action), rebuilt.step(action)
        assert plain(ours) == plain(theirs)
        if ours[2] or ours[3]:
            break
    assert clocked(rebuilt).due(10**4) == clocked(env).due(10**4)


N, STEPS = 2, 24  # 24 steps of 2 sub-environments: changes at t = 7, 14, ..., 42


def actions(id: str) -> np.ndarray:
    space = gym.vector.utils.batch_space(make(id).action_space, N)
    space.seed(0)
    return np.array([space.sample() for _ in range(STEPS)])


def forked(fns: list[Callable[[], gym.Env]]) -> SubprocVecEnv:
    return SubprocVecEnv(fns, start_method="fork")  # type: ignore[arg-type]  # forkserver imports torch each time


@pytest.mark.parametrize("id", IDS)
@pytest.mark.parametrize("kind", [DummyVecEnv, forked])
def test_sub_environments_of_stable_baselines_change_at_the_same_vector_step(id: str, kind: Any) -> None:
    schedule = clocked(make(id))
    venv = kind([partial(make, id, stride=N, boundary="step") for _ in range(N)])
    venv.seed(0)
    venv.reset()
    regimes, values = set(), set()
    for step, action in enumerate(actions(id), start=1):
        *_, infos = venv.step(action)
        then = schedule.due((step - 1) * N)
        assert [{key: info[key] for key in then} for info in infos] == [then] * N
        assert venv.env_method("applied") == [schedule.due(step * N)] * N
        regimes.add(then["nonstationary/regime"])
        values.add(tuple(then.values()))
    venv.close()
    assert len(values) > 3
    assert len(regimes) == (1 if id.startswith("Drifting") else 7)


@pytest.mark.parametrize("id", IDS)
def test_sub_environments_of_gymnasiums_async_vector_change_at_the_same_vector_step(id: str) -> None:
    schedule = clocked(make(id))
    venv = AsyncVectorEnv([partial(make, id, stride=N, boundary="step", count_resets=True) for _ in range(N)])
    venv.reset(seed=0)
    for step, action in enumerate(actions(id), start=1):
        venv.step(action)
        assert venv.get_attr("clock") == (step * N,) * N
        assert venv.call("due") == (schedule.due(step * N),) * N
        if id not in SEQUENCES:  # one that is truncated has the next vector step for its reset
            assert venv.call("applied") == (schedule.due(step * N),) * N
    venv.close()


@pytest.mark.parametrize("id", IDS)
def test_seeds_repeat_an_environment_and_leave_its_schedule_alone(id: str) -> None:
    def run(env: gym.Env, seed: int) -> Any:
        rows: list[Any] = [env.reset(seed=seed)]
        env.action_space.seed(seed)
        for _ in range(25):
            rows.append(env.step(env.action_space.sample()))
            if rows[-1][2] or rows[-1][3]:
                rows.append(env.reset())
        return plain(rows)

    assert run(make(id), 3) == run(make(id), 3) != run(make(id), 4)
    env = clocked(make(id))
    run(env, 3)
    clock = env.clock
    env.reset(seed=3)
    assert env.clock == clock == 25
    fresh, other = clocked(make(id)), clocked(make(id, schedule_seed=8))
    ours, again, others = ([e.due(t) for t in range(0, 70, 7)] for e in (env, fresh, other))
    assert ours == again
    (schedule,) = env.schedules.values()
    readings_differ = "mask" not in str(schedule)  # one of eight has failed, whichever
    assert (ours != others) == ("cycle" not in str(schedule) and readings_differ)


@pytest.mark.parametrize("id", IDS)
def test_limits_and_spaces_are_those_of_the_environment_it_starts_from(id: str) -> None:
    if id in SEQUENCES:
        pytest.skip("its tasks bring their own")
    ours, theirs = gym.make(id), gym.make(TASKS[id].base)
    assert ours.spec is not None
    assert theirs.spec is not None
    assert ours.spec.max_episode_steps == theirs.spec.max_episode_steps
    assert ours.observation_space.shape == theirs.observation_space.shape
    assert ours.observation_space == theirs.observation_space or "Observation" in id
    assert ours.action_space == theirs.action_space
    assert [name for name in stack(ours) if name != "NonStationary"] == stack(theirs)


@pytest.mark.parametrize("id", IDS)
def test_every_target_that_may_be_asked_for_works(id: str) -> None:
    for target in TASKS[id].changes:
        wind = {"enable_wind": True} if target.endswith("_power") else {}
        env = clocked(make(id, target=target, **wind))
        assert list(env.schedules) == [target]
        assert env.due(10_000) != env.due(0)


def test_the_table_is_whole() -> None:
    bases = {row.base for row in TASKS.values()}
    for robot in ("Ant", "HalfCheetah", "Humanoid", "Hopper", "Walker2d"):
        (target,) = TASKS[f"Slippery{robot}-v5"].changes
        assert target == ("friction_scale" if robot in ("Hopper", "Walker2d") else "friction")
    for base in ("CartPole-v1", "Acrobot-v1", "LunarLander-v3"):
        (schedule,) = TASKS[f"ObservationOffset{base}"].changes.values()
        assert schedule == "every:160000|gaussian_vector:2.0"
    changed = {target for row in TASKS.values() for target in row.changes}
    assert {"observation_permutation", "action_reversal", "action_permutation", "action_delay"} <= changed
    assert {"actuator_failure", "reward_scale", "target_direction", "task"} <= changed
    assert {"CartPole-v1", "Pendulum-v1", "Acrobot-v1", "MountainCar-v0", "LunarLander-v3"} <= bases
    for row in TASKS.values():
        assert row.says
        for schedule in row.changes.values() if row.quick else ():
            assert 8_000 <= int(schedule.partition("|")[0].removeprefix("every:")) <= 20_000


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
    env = clocked(gym.make("SlipperyAnt-v5", period="5e2", to="uniform:1,2", first="nominal", legacy_obs=False))
    assert env.due(499)["nonstationary/friction"] == 1.0
    assert env.observation_space.shape == (105,)


def test_a_drifts_period_is_its_time_scale_and_another_drift_may_be_given() -> None:
    def schedule(**kwargs: Any) -> str:
        return str(*clocked(gym.make("DriftingAnt-v5", **kwargs)).schedules.values())

    assert schedule() == "random_walk:2000000,1.0,0.6,0.1,2.0|resolution:2000"
    assert schedule(period=5e5) == "random_walk:500000,1.0,0.6,0.1,2.0|resolution:500"
    assert schedule(period=500) == "random_walk:500,1.0,0.6,0.1,2.0|resolution:1"
    assert schedule(target="gravity", period=500).startswith("random_walk:500,1.0,0.3,0.5,1.5")
    assert schedule(drift="sine:1e4,0.5,1.5") == "sine:10000,0.5,1.5|resolution:10"


def test_a_registered_sequence_goes_from_goal_to_goal_and_can_be_rendered() -> None:
    env = gym.make("FrozenLakeSequence-v1", period=50, boundary="truncate", render_mode="ansi")
    env.reset(seed=0)
    there = {0: [1, 1, 2, 2, 1, 2], 1: [2, 2, 2], 2: [1, 1]}  # down is 1, right is 2
    for task, path in [*there.items(), (0, there[0])]:
        clocked(env).set_clock(50 * task)
        env.reset()
        rows = [env.step(action) for action in path]
        assert [row[1] for row in rows] == [0] * (len(path) - 1) + [1]
        assert rows[-1][4]["nonstationary/task"] == task
    assert "G" in str(env.render())


@pytest.mark.parametrize(
    ("id", "kwargs", "message"),
    [
        ("SlipperyAnt-v5", {"perod": 500}, 'unknown keyword of AntEnv "perod"'),
        ("SlipperyAnt-v5", {"perod": 500}, 'did you mean "period"?'),
        ("SlipperyAnt-v5", {"period": "often"}, "the period in when: every must be a whole number >= 1"),
        ("DriftingAnt-v5", {"period": "often"}, "steps in drift: random_walk must be a whole number >= 1"),
        ("DriftingAnt-v5", {"to": "cycle:1"}, 'a drift brings its own times and values: leave out "to"'),
        (
            "DriftingAnt-v5",
            {"target": "mass"},
            "unknown 'target' of DriftingAnt-v5 \"mass\": allowed are friction, gra",
        ),
        ("NSCartPole-v1", {"target": "lenght"}, 'did you mean "length"?'),
        ("NSCartPole-v1", {"legacy_obs": True}, 'unknown keyword of CartPoleEnv "legacy_obs"'),
        ("FrozenLakeSequence-v1", {"boundary": "step"}, "unknown 'boundary' of task \"step\": allowed are episode, tr"),
        (
            "NSPendulum-v1",
            {"boundary": "sometimes"},
            "unknown 'boundary' \"sometimes\": allowed are episode, step, truncate",
        ),
        (
            "NSPendulum-v1",
            {"drift": "sine:2000,0.5,1.5", "period": 500},
            "drift='sine:2000,0.5,1.5' brings its own times and values: leave out period (None; in train.py, whose "
            "files may set it, env.kwargs.period=null)",
        ),
        ("DriftingAnt-v5", {"drift": "sine:2000,0.5,1.5", "period": 500}, "brings its own times and values: leave out"),
        ("NSPendulum-v1", {"table": "a.csv", "period": 5, "to": "sign"}, "table='a.csv' brings its own times"),
        ("NSPendulum-v1", {"table": "a.csv", "first": "draw"}, "leave out first"),
        ("NSPendulum-v1", {"table": "a.csv", "drift": "sine:2000,0.5,1.5"}, "leave out table"),
        ("NSPendulum-v1", {"count_resets": "a"}, "count_resets must be True or False, got 'a'"),
        ("SlipperyAnt-v5", {"target": "gravity"}, "takes no target, got 'gravity'; for other quantities wrap Ant-v5"),
    ],
)
def test_errors_teach(id: str, kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        gym.make(id, **kwargs)


def said(code: str) -> str:
    out = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    return out.stdout.strip()


def test_importing_envs_needs_neither_torch_nor_mujoco() -> None:
    code = (
        "import sys, envs, gymnasium; gymnasium.make('NSCartPole-v1'); gymnasium.make('NSPendulum-v1')\n"
        "print([name for name in ('torch', 'stable_baselines3', 'mujoco', 'Box2D') if name in sys.modules])"
    )
    assert said(code) == "[]"


def test_without_box2d_lunar_lander_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['Box2D'] = None\n"
        "import gymnasium, envs\n"
        "try: gymnasium.make('NSLunarLander-v3')\n"
        "except gymnasium.error.DependencyNotInstalled as error: print(error)"
    )
    assert said(code).startswith('NSLunarLander-v3 needs Box2D: python -m pip install "pliant-rl[box2d]"')


def test_every_public_name_is_documented() -> None:
    for name in envs.__all__:
        assert name == "TASKS" or getattr(envs, name).__doc__
