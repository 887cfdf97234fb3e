"""How the sub-environments of a run are stepped: chosen by itself, told where it is not as asked, and of no effect."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stable_baselines3.common.vec_env import DummyVecEnv

from agents import BatchedVecEnv
from envs.checkpointable import same
from experiments.compose import compose
from experiments.environment import make_vec_env, stepping
from experiments.errors import EnvironmentFailure
from experiments.resume import vector
from experiments.schema import Config, validate
from tests.experiments.conftest import run_train

ANT = ("env.n_envs=2", "env.kwargs.period=40")


def configured(*words: str) -> Config:
    return validate(compose(words).tree)


def kind(*words: str) -> type:
    env = make_vec_env(configured(*words))
    env.close()
    return type(env.unwrapped)


def test_what_is_chosen() -> None:
    assert kind(*ANT) is BatchedVecEnv
    assert kind() is BatchedVecEnv  # for one too
    assert kind(*ANT, "env.vectorization=dummy") is DummyVecEnv
    assert kind(*ANT, "env.vectorization=batched") is BatchedVecEnv
    assert kind("env=gym", "env.id=Hopper-v5", "env.normalize_observations=true") is BatchedVecEnv
    assert kind("env=ns_cartpole", "agent.n_steps=32") is DummyVecEnv


def test_it_says_why_not_where_it_was_asked_for() -> None:
    for word, lines in {
        "auto": [],
        "dummy": [],
        "batched": [
            "env.vectorization=batched is not possible, they are stepped one after the other: CartPoleEnv is none of "
            "Gymnasium's AntEnv, HalfCheetahEnv, HumanoidEnv, HopperEnv, Walker2dEnv, version 5"
        ],
    }.items():
        config = configured("env=ns_cartpole", f"env.vectorization={word}")
        assert stepping(config, make_vec_env(config)) == lines
    config = configured(*ANT, "env.vectorization=batched")
    assert stepping(config, make_vec_env(config)) == []


def test_the_threads_are_those_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    class Noted(BatchedVecEnv):
        def __init__(self, env_fns: Any, threads: int | None = None) -> None:
            asked.append(threads)
            super().__init__(env_fns, threads)

    monkeypatch.setattr("experiments.environment.BatchedVecEnv", Noted)
    make_vec_env(configured(*ANT, "run.threads=3"))
    assert asked == [3]


def test_nothing_that_is_learned_or_resumed_depends_on_it() -> None:
    first, second = (make_vec_env(configured(*ANT, f"env.vectorization={word}")) for word in ("dummy", "batched"))
    rng = np.random.default_rng(0)
    for env in (first, second):
        env.seed(0)
        env.reset()
    for _ in range(60):
        actions = rng.uniform(-1, 1, (2, 8)).astype(np.float32)
        assert same(first.step(actions), second.step(actions))
    words = {word: vector(configured(f"env.vectorization={word}")) for word in ("auto", "dummy", "batched", "subproc")}
    assert words == {"auto": "dummy", "dummy": "dummy", "batched": "dummy", "subproc": "subproc"}


class Unlucky:
    """A target that raises in one of the copies, at its fifth step."""

    name = "unlucky"

    def validate(self, env: Any) -> None:
        self._env = env.unwrapped

    def apply(self, value: float) -> None: ...

    def restore(self) -> None: ...

    def reward(self, reward: Any, info: Any) -> Any:
        if self._env.np_random_seed == 1 and self._env.data.time > 0.22:
            raise OverflowError("that was too much")
        return reward


def test_a_target_that_fails_is_named_with_its_place() -> None:
    config = configured("env=gym", "env.id=Ant-v5", "env.n_envs=3")
    change = {"target": Unlucky, "when": "every:9", "to": "cycle:1,2"}
    env = make_vec_env(replace(config, env=replace(config.env, changes=(change,))))
    assert type(env.unwrapped) is BatchedVecEnv
    env.seed(0)
    env.reset()
    for _ in range(4):
        env.step(np.zeros((3, 8), np.float32))
    with pytest.raises(EnvironmentFailure, match="sub-environment 1 raised OverflowError: that was too much"):
        env.step(np.zeros((3, 8), np.float32))


@pytest.mark.slow
def test_a_run_goes_on_with_the_other_kind_and_ends_the_same(tmp_path: Path) -> None:
    words = [
        *("env=gym", "env.id=Hopper-v5", "env.n_envs=2", "agent.n_steps=64", "agent.batch_size=64", "run.dir=run"),
        *(
            "env.changes=[{target: friction_scale, when: 'every:90', to: 'uniform:0.5,1.5'}]",
            "run.checkpoint.every=128",
        ),
    ]
    for folder, kinds in {"one": ("dummy", "dummy"), "both": ("dummy", "batched")}.items():
        (tmp_path / folder).mkdir()
        for kind, steps in zip(kinds, (256, 512), strict=True):
            outcome = run_train([*words, f"env.vectorization={kind}", f"total_steps={steps}"], tmp_path / folder)
            assert outcome.code == 0
            assert "warning" not in outcome.out
    episodes = [(tmp_path / folder / "run" / "episodes.csv").read_text() for folder in ("one", "both")]
    assert episodes[0] == episodes[1]
