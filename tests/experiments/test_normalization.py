"""`env.normalize_observations` and `env.normalize_rewards`: SB3's VecNormalize, what is kept of it, what is refused."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import yaml
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize, unwrap_vec_normalize

from agents import PlasticityMonitor
from experiments import folder as files
from experiments import probe
from experiments.build import build_model
from experiments.compose import compose
from experiments.environment import make_env, make_vec_env
from experiments.forgetting import forgetting_evaluation
from experiments.normalization import write_normalization
from experiments.schema import Config, validate
from tests.experiments.conftest import Outcome

Command = Callable[..., Outcome]
ON = ("env.normalize_observations=true", "env.normalize_rewards=true")
PPO_WORDS = (
    *("env=ns_cartpole", "env.n_envs=2", "env.kwargs.period=600", "total_steps=1024", "agent.n_steps=256"),
    *("agent.batch_size=64", "agent.net_arch=[8]", "agent.n_epochs=1", "agent.gamma=0.9", "plasticity=none"),
)
SAC_WORDS = (
    *("agent=sac", "env=ns_pendulum", "env.kwargs.period=800", "total_steps=1100", "agent.net_arch=[8]"),
    *("agent.batch_size=16", "agent.learning_starts=1080", "plasticity=none"),
)


def configured(*words: str) -> Config:
    return validate(compose(words).tree)


def stepped(env: VecEnv, steps: int = 200) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Observations (steps + 1, envs, size), rewards and dones (steps, envs) under the same random actions each time."""
    env.seed(3)
    env.action_space.seed(3)
    observations, rewards, dones = [env.reset()], [], []
    for _ in range(steps):
        observation, reward, done, _ = env.step(np.array([env.action_space.sample() for _ in range(env.num_envs)]))
        observations.append(observation)
        rewards.append(reward)
        dones.append(done)
    env.close()
    return np.array(observations), np.array(rewards), np.array(dones)


def test_statistics_are_the_mean_and_variance_of_all_that_was_seen(tmp_path: Path) -> None:
    config = configured(*PPO_WORDS, *ON)
    env = make_vec_env(config)
    normalized_observations, normalized_rewards, _ = stepped(env)
    raw, rewards, dones = stepped(DummyVecEnv([lambda: make_env(config.env)] * 2))
    write_normalization(tmp_path, env)
    kept = json.loads((tmp_path / files.NORMALIZATION).read_text())
    returns, total = [], np.zeros(2)
    for reward, done in zip(rewards, dones, strict=True):
        total = 0.9 * total + reward  # agent.gamma
        returns.append(total.copy())
        total[done] = 0
    for found, seen in (
        (kept["observations"], raw.reshape(-1, 4).astype(float)),
        (kept["rewards"], np.array(returns).reshape(-1)),
    ):
        count = len(seen) + 1e-4  # SB3 starts from a ten-thousandth of an observation of mean 0 and variance 1
        mean = seen.sum(0) / count
        np.testing.assert_allclose(found["mean"], mean, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(found["var"], (((seen - mean) ** 2).sum(0) + 1e-4 * (1 + mean**2)) / count, 1e-6)
        assert found["count"] == pytest.approx(count)
        assert (found["clip"], found["epsilon"]) == (10, 1e-8)
    assert kept["rewards"]["gamma"] == 0.9

    stock = VecNormalize(DummyVecEnv([lambda: make_env(config.env)] * 2), gamma=0.9)
    by_stock = stepped(stock)
    np.testing.assert_array_equal(normalized_observations, by_stock[0])
    np.testing.assert_array_equal(normalized_rewards, by_stock[1])
    last, about = kept["observations"], raw[-1]
    by_hand = np.clip((about - last["mean"]) / np.sqrt(np.array(last["var"]) + last["epsilon"]), -10, 10)
    np.testing.assert_array_equal(by_hand.astype(np.float32), normalized_observations[-1])


@pytest.mark.parametrize(("word", "null"), [(ON[0], "rewards"), (ON[1], "observations")])
def test_one_of_the_two_leaves_the_other_as_it_is(word: str, null: str, tmp_path: Path) -> None:
    env = make_vec_env(configured(*PPO_WORDS, word))
    plain = make_vec_env(configured(*PPO_WORDS))
    assert unwrap_vec_normalize(plain) is None
    for index, name in enumerate(("observations", "rewards")):
        same = np.array_equal(stepped(env)[index], stepped(plain)[index])
        assert same == (name == null)
    write_normalization(tmp_path, env)
    kept = json.loads((tmp_path / files.NORMALIZATION).read_text())
    assert [name for name, value in kept.items() if value is None] == [null]


def test_nothing_is_kept_where_nothing_was_normalised(tmp_path: Path) -> None:
    write_normalization(tmp_path, make_vec_env(configured(*PPO_WORDS)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [PPO_WORDS, SAC_WORDS], ids=["ppo", "sac"])
def test_a_run_with_both_is_measured_tested_and_probed_and_its_returns_are_raw(
    words: tuple[str, ...], command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tested = ("evaluation.episodes=1", "evaluation.fresh=true") if words is PPO_WORDS else ()
    outcome = command(*words, *ON, *tested, "run.dir=run")
    assert (outcome.code, outcome.err) == (0, "")
    with (tmp_path / "run" / files.EPISODES).open(newline="") as file:
        episodes = list(csv.DictReader(file))
    for row in episodes:
        if words is PPO_WORDS:
            assert float(row["return"]) == int(row["length"])  # a reward of 1 at each step
        else:
            assert float(row["return"]) < -300  # 200 steps in [-16, 0], a few units after normalisation
    batch, _ = files.read_probe(tmp_path / "run")
    assert batch.shape[0] == 1024
    assert batch.std(0).numpy() == pytest.approx(1, abs=0.5)  # of each entry; raw ones have from 0.1 to 3
    assert probe.main([str(tmp_path / "run")]) == 0
    assert "Fitting random functions" in capsys.readouterr().out


def test_the_monitor_reads_what_the_networks_read_and_fresh_agents_have_statistics_of_their_own() -> None:
    """A replay buffer's normalised rows are checked in tests/agents/test_monitor.py."""
    config = configured(*PPO_WORDS, *ON, "evaluation.episodes=1", "evaluation.fresh=true")
    env = make_vec_env(config)
    model: Any = build_model(config, env)
    monitor = PlasticityMonitor()
    model.learn(1024, callback=monitor)
    assert monitor.probe is not None
    collected = {tuple(row) for row in model.rollout_buffer.observations.reshape(-1, 4)}
    assert collected <= {tuple(row) for row in monitor.probe[0].numpy()}  # its first half is from the rollout before

    evaluation = forgetting_evaluation(config, lambda: False)
    assert evaluation is not None
    assert evaluation.fresh is not None
    fresh = evaluation.fresh(DummyVecEnv([lambda: make_env(config.env)]), 1)
    own: Any = fresh.get_vec_normalize_env()
    assert (own.norm_obs, own.norm_reward, own.gamma, own.training) == (True, True, 0.9, True)
    assert own.obs_rms.count < 1

    before = evaluation.frozen.returns(model, [0])[0]
    model.get_vec_normalize_env().obs_rms.mean += 50.0
    assert evaluation.frozen.returns(model, [0])[0] != before  # tests are by what the agent makes of an observation
    evaluation.frozen.close()
    env.close()


def test_both_are_shown_and_off_unless_asked_for(command: Command) -> None:
    shown = yaml.safe_load(command("--cfg", "job").out)["env"]
    assert (shown["normalize_observations"], shown["normalize_rewards"]) == (False, False)


class Images(gym.Env[Any, Any]):
    """Observes images."""

    observation_space = gym.spaces.Box(0, 255, (36, 36, 3), np.uint8)
    action_space = gym.spaces.Discrete(2)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["env=gym", "env.id=Images-v0", "agent.policy=CnnPolicy"],
            "env.normalize_observations is not for images, which are scaled to [0, 1] without it, and Images-v0 "
            "observes Box(0, 255, (36, 36, 3), uint8); set env.normalize_observations=false",
        ),
        (
            ["env=frozen_lake_sequence"],
            "env.normalize_observations needs observations in a Box, FrozenLakeSequence-v1 observes Discrete(16)",
        ),
        (["env.normalize_observations=3"], "env.normalize_observations must be true or false, got 3"),
        (["env.normalise_rewards=true"], 'did you mean "normalize_rewards"?'),
    ],
    ids=["images", "discrete", "number", "spelling"],
)
def test_what_cannot_be_normalised_is_refused(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], said: str
) -> None:
    monkeypatch.setitem(gym.registry, "Images-v0", gym.envs.registration.EnvSpec("Images-v0", entry_point=Images))
    outcome = command(*ON, "plasticity=none", *words)
    assert outcome.code == 2
    assert len(outcome.errors) == 1
    assert said in outcome.err
    assert list(tmp_path.iterdir()) == []
