"""Sequences of tasks."""

import copy
import pickle
import re
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

from envs import NonStationary, make_task_sequence

TASK = "nonstationary/task"
LIGHT = {"id": "Pendulum-v1", "g": 1.0, "max_episode_steps": 10}
HEAVY = {"id": "Pendulum-v1", "g": 20.0, "max_episode_steps": 10}
ACTION = np.ones(1, np.float32)


def gravity(env: Any) -> float:
    switch = env.unwrapped
    return float(switch.envs[switch.active].unwrapped.g)


@pytest.mark.parametrize("boundary", ["episode", "truncate"])
@pytest.mark.parametrize("repeat", [True, False])
def test_tasks_follow_each_other_at_resets(boundary: str, repeat: bool) -> None:
    env = make_task_sequence([LIGHT, HEAVY], 25, repeat=repeat, boundary=boundary)
    env.reset(seed=0)
    rows = []
    for _ in range(80):
        *_, terminated, truncated, info = env.step(ACTION)
        rows.append((gravity(env), info[TASK], truncated))
        assert not terminated
        if truncated:
            env.reset()
    assert all(g == (20.0 if task else 1.0) for g, task, _ in rows)
    ends = [i + 1 for i, row in enumerate(rows) if row[2]]
    if boundary == "truncate":
        assert ends == ([10, 20, 25, 35, 45, 50, 60, 70, 75] if repeat else [10, 20, 25, 35, 45, 55, 65, 75])
        switches = [25, 50, 75]
    else:
        assert ends == list(range(10, 81, 10))
        switches = [30, 50, 80]
    changes = [i for i in range(1, 80) if rows[i][1] != rows[i - 1][1]]
    assert changes == [t for t in switches if t < 80][: None if repeat else 1]


def test_a_task_is_the_environment_itself() -> None:
    sequence, plain = make_task_sequence([LIGHT, HEAVY], 1000), gym.make(**HEAVY)
    sequence.set_clock(1000)
    np.testing.assert_array_equal(sequence.reset(seed=4)[0], plain.reset(seed=4)[0])
    for _ in range(10):
        ours, theirs = sequence.step(ACTION), plain.step(ACTION)
        np.testing.assert_array_equal(ours[0], theirs[0])
        assert ours[1:4] == theirs[1:4]
    sequence.set_clock(0)
    light = gym.make(**LIGHT)
    np.testing.assert_array_equal(sequence.reset()[0], light.reset(seed=4)[0])  # the seed waited for its task
    assert not np.array_equal(sequence.reset()[0], sequence.reset()[0])
    sequence.pin(1)
    sequence.reset()
    assert gravity(sequence) == 20.0


@pytest.mark.parametrize("how", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
@pytest.mark.parametrize("id", ["Pendulum-v1", "InvertedPendulum-v5"])
def test_copies_go_on_where_the_original_is(how: Any, id: str) -> None:
    env = make_task_sequence([id, {"id": id, "max_episode_steps": 7}], 25)
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    for _ in range(3):
        env.step(ACTION * 0.1)
    twin = how(env)
    for _ in range(60):
        action = rng.uniform(-1, 1, 1).astype(np.float32)
        ours, theirs = env.step(action), twin.step(action)
        assert ours[0].tobytes() == theirs[0].tobytes()
        assert ours[1:4] == theirs[1:4]
        assert ours[4][TASK] == theirs[4][TASK]
        if ours[2] or ours[3]:
            assert env.reset()[0].tobytes() == twin.reset()[0].tobytes()


def test_sub_environments_are_in_the_same_task() -> None:
    makers = [partial(make_task_sequence, [LIGHT, HEAVY], 20, stride=2, boundary="truncate") for _ in range(2)]
    for venv in (DummyVecEnv(makers), SubprocVecEnv(makers, start_method="fork")):  # type: ignore[arg-type]
        venv.reset()
        for step in range(30):
            *_, infos = venv.step(np.ones((2, 1), np.float32))
            assert [info[TASK] for info in infos] == [step // 10 % 2] * 2
        venv.close()


@pytest.mark.parametrize(
    ("tasks", "kwargs", "message"),
    [
        (["Pendulum-v1", "CartPole-v1"], {}, "the tasks of a sequence need equal spaces: observation_space is Box("),
        (["Pendulum-v1"], {}, "a sequence of tasks needs a list of two ids or more, got ['Pendulum-v1']"),
        ([1, 2], {}, "tasks[0] must be an id or a dict with an id, got 1"),
        ([LIGHT, {"g": 3}], {}, "tasks[1] must be an id or a dict with an id, got {'g': 3}"),
        ([LIGHT, {"id": 3}], {}, "tasks[1] must be an id or a dict with an id, got {'id': 3}"),
        ("Pendulum-v1", {}, "a sequence of tasks needs a list of two ids or more, got 'Pendulum-v1'"),
        (
            [LIGHT, HEAVY],
            {"boundary": "step"},
            "unknown 'boundary' of task \"step\": allowed are episode, truncate",
        ),
        ([LIGHT, HEAVY], {"steps_per_task": "soon"}, "the period in when: every must be a whole number >= 1"),
    ],
)
def test_errors_teach(tasks: Any, kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        make_task_sequence(tasks, **{"steps_per_task": 10, **kwargs})


def test_other_changes_join_and_odd_numbers_are_refused() -> None:
    env = make_task_sequence([LIGHT, HEAVY], 10)
    both = ["task=every:10|cycle:0,1|draw", "observation_offset=every:10|gaussian_vector:1"]
    NonStationary(env.env, both)
    with pytest.raises(ValueError, match=re.escape("task takes whole numbers (to: list or cycle), got 0.5")):
        NonStationary(env.env, "task=every:10|cycle:0.5")
    with pytest.raises(ValueError, match=re.escape("task must be in [0, 1], got 2")):
        env.pin(2)
