"""What agents get in the registered tasks: random ones in a few frozen regimes, trained ones in the first.

python benchmarks/environment_returns.py    # about 10 minutes of one core

Random: returns of actions drawn from the action space, the mean over EPISODES episodes in each of the first REGIMES
regimes (of a drift: at as many times, a time scale apart), which are frozen one after the other.

Trained: an agent of Stable-Baselines3 trained and tested (deterministically, TESTS episodes) in the first regime, which
never changes. Of most tasks this is the plain environment, so tasks that start from the same one share an agent. MuJoCo
robots would take hours of a core and have no number. docs/environments.md is written from the result,
docs/data/environment_returns.json.
"""

from __future__ import annotations

import copy
import importlib.metadata
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch
from stable_baselines3 import DQN, PPO, SAC
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor

from envs import TASKS, Drift, NonStationary

RESULT = Path(__file__).parent.parent / "docs" / "data" / "environment_returns.json"
REGIMES, EPISODES, TESTS = 5, 4, 20
# base: (algorithm, environment steps, copies of the environment, settings that differ from the algorithm's own)
LEARNERS: dict[str, tuple[Any, int, int, dict[str, Any]]] = {
    "CartPole-v1": (PPO, 50_000, 4, {"learning_rate": 1e-3, "n_steps": 128, "gamma": 0.98, "gae_lambda": 0.9}),
    "Pendulum-v1": (SAC, 6_000, 1, {"learning_rate": 1e-3, "policy_kwargs": {"net_arch": [64, 64]}}),
    "Acrobot-v1": (PPO, 50_000, 4, {"learning_rate": 1e-3, "n_steps": 256, "gae_lambda": 0.94, "n_epochs": 4}),
    "MountainCar-v0": (
        DQN,
        60_000,
        1,
        {
            "learning_rate": 4e-3,
            "batch_size": 128,
            "buffer_size": 10_000,
            "learning_starts": 1_000,
            "gamma": 0.98,
            "target_update_interval": 600,
            "train_freq": 16,
            "gradient_steps": 8,
            "exploration_fraction": 0.2,
            "exploration_final_eps": 0.07,
        },
    ),
    "LunarLander-v3": (
        PPO,
        100_000,
        8,
        {
            "learning_rate": 1e-3,
            "n_steps": 256,
            "batch_size": 64,
            "gamma": 0.99,
            "gae_lambda": 0.98,
            "n_epochs": 6,
            "ent_coef": 0.01,
        },
    ),
    "envs.switch:TaskSwitch": (
        DQN,
        15_000,
        1,
        {
            "learning_rate": 1e-3,
            "learning_starts": 500,
            "train_freq": 4,
            "target_update_interval": 250,
            "exploration_fraction": 0.6,
            "gamma": 0.95,
        },
    ),
}


def frozen(id: str, regime: int) -> gym.Env[Any, Any]:
    """The task in one regime that stays."""
    env = gym.make(id)
    wrapper: Any = env
    while not isinstance(wrapper, NonStationary):
        wrapper = wrapper.env
    (schedule,) = wrapper.schedules.values()
    wrapper.set_clock(regime * schedule.path.steps if isinstance(schedule, Drift) else schedule.start(regime))
    wrapper.pin()
    return env


def random_returns(id: str) -> dict[str, Any]:
    """Mean return of random actions in each regime, and over all."""
    means = []
    for regime in range(REGIMES):
        env = frozen(id, regime)
        env.action_space.seed(regime)
        means.append(statistics.mean(_random_episode(env, seed) for seed in range(EPISODES)))
        env.close()
    return {"mean": round(statistics.mean(means), 2), "regimes": [round(mean, 2) for mean in means]}


def _random_episode(env: gym.Env[Any, Any], seed: int) -> float:
    env.reset(seed=seed)
    total = 0.0
    while True:
        _, reward, terminated, truncated, _ = env.step(env.action_space.sample())
        total += float(reward)
        if terminated or truncated:
            return total


def trained_returns(base: str) -> dict[str, Any]:
    """Mean return of an agent that was trained in the first regime of the first task that starts from `base`."""
    id = next(id for id, row in TASKS.items() if row.base == base)
    algorithm, steps, copies, settings = LEARNERS[base]
    start = time.process_time()
    venv = make_vec_env(lambda: frozen(id, 0), copies, seed=0)
    model = algorithm("MlpPolicy", venv, seed=0, device="cpu", **copy.deepcopy(settings))  # which it writes into
    model.learn(steps)
    mean, deviation = evaluate_policy(model, Monitor(frozen(id, 0)), TESTS)
    return {
        "algorithm": algorithm.__name__,
        "steps": steps,
        "copies": copies,
        "settings": settings,
        "mean": round(float(mean), 2),
        "deviation": round(float(deviation), 2),
        "seconds": round(time.process_time() - start),
    }


def main(say: Callable[[str], None] = print) -> None:
    """Measure, say what came out, and write it down."""
    torch.set_num_threads(1)
    versions = {name: importlib.metadata.version(name) for name in ("stable_baselines3", "gymnasium", "mujoco")}
    found: dict[str, Any] = {
        "versions": versions | {"Python": platform.python_version()},
        "regimes": REGIMES,
        "episodes": EPISODES,
        "tests": TESTS,
        "random": {},
        "trained": {},
    }
    for id in TASKS:
        numbers = found["random"][id] = random_returns(id)
        say(f"{id:40} random {numbers['mean']:9.2f} {numbers['regimes']}")
    for base in LEARNERS:
        numbers = found["trained"][base] = trained_returns(base)
        say(f"{base:40} {numbers['algorithm']} {numbers['mean']:9.2f} in {numbers['seconds']} s")
        RESULT.parent.mkdir(exist_ok=True)
        RESULT.write_text(json.dumps(found, indent=2) + "\n", "utf-8")  # each time: what is done is done


if __name__ == "__main__":
    main()
