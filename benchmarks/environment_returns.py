"""What agents get in the registered tasks: random ones in a few frozen regimes, trained ones in the first.

python benchmarks/environment_returns.py    # about an hour of one core; goes on where it was stopped

Random: returns of actions drawn from the action space, the mean over episodes in each of the first REGIMES regimes (of
a drift: at as many times, a time scale apart), which are frozen one after the other. Episodes are FEWEST or more, until
they have STEPS steps in all or are MOST. All regimes get the same starts and the same actions, so that what differs
between them is the world and not the draw.

Trained: an agent of Stable-Baselines3 trained and tested (deterministically, TESTS episodes) in the first regime, which
never changes. Of most tasks this is the plain environment, so tasks that start from the same one share an agent.
docs/environments.md is written from the result, docs/data/environment_returns.json; what that file holds already, with
these settings and versions, is not measured again.
"""

from __future__ import annotations

import copy
import importlib.metadata
import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch
from stable_baselines3 import DQN, PPO, SAC
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from envs import TASKS, Drift, NonStationary, parse_schedule

RESULT = Path(__file__).parent.parent / "docs" / "data" / "environment_returns.json"
REGIMES, FEWEST, MOST, STEPS, TESTS = 5, 10, 100, 5_000, 20


@dataclass(frozen=True)
class Learner:
    """An agent: algorithm, environment steps, copies of the environment, settings that differ from the algorithm's own.

    normalized: whether observations and rewards are, by their running statistics.
    """

    algorithm: Any
    steps: int
    copies: int
    settings: dict[str, Any] = field(default_factory=dict)
    normalized: bool = False


# For all robots a short training of 32 rollouts; rollouts, discounts and log_std_init are those of `train.py
# env=slippery_ant`. Actions begin mildly: a robot that flails falls over, and learns to fall sooner.
ROBOT = Learner(
    PPO,
    65_536,
    8,
    {"n_steps": 256, "batch_size": 256, "gamma": 0.98, "gae_lambda": 0.9, "policy_kwargs": {"log_std_init": -1.0}},
    normalized=True,
)
# by world, see there
LEARNERS: dict[str, Learner] = {
    "CartPole-v1": Learner(PPO, 50_000, 4, {"learning_rate": 1e-3, "n_steps": 128, "gamma": 0.98, "gae_lambda": 0.9}),
    "Pendulum-v1": Learner(SAC, 6_000, 1, {"learning_rate": 1e-3, "policy_kwargs": {"net_arch": [64, 64]}}),
    "Acrobot-v1": Learner(PPO, 50_000, 4, {"learning_rate": 1e-3, "n_steps": 256, "gae_lambda": 0.94, "n_epochs": 4}),
    "MountainCar-v0": Learner(
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
    "LunarLander-v3": Learner(
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
    "FrozenLakeSequence-v1": Learner(
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
    "Ant-v5": ROBOT,
    "HalfCheetah-v5": ROBOT,
    "SlipperyAnt-v5": ROBOT,
    "SlipperyHopper-v5": ROBOT,
    "SlipperyWalker2d-v5": ROBOT,
    "SlipperyHalfCheetah-v5": ROBOT,
    "SlipperyHumanoid-v5": ROBOT,
}


def world(id: str) -> str:
    """What a task's agent is trained in: its base, or where the first regime is drawn already, the task itself."""
    row = TASKS[id]
    schedule = parse_schedule(next(iter(row.changes.values())))
    drawn = not isinstance(schedule, Drift) and schedule.first == "draw"
    return id if drawn else row.base


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
    """Mean return of random actions in each regime, and over all; how many episodes the means are of."""
    found = []
    for regime in range(REGIMES):
        env = frozen(id, regime)
        found.append(_random_episodes(env))
        env.close()
    means = [statistics.mean(returns) for returns in found]
    return {
        "mean": round(statistics.mean(means), 2),
        "regimes": [round(mean, 2) for mean in means],
        "episodes": [len(returns) for returns in found],
    }


def _random_episodes(env: gym.Env[Any, Any]) -> list[float]:
    returns: list[float] = []
    steps = 0
    while len(returns) < FEWEST or (len(returns) < MOST and steps < STEPS):
        env.reset(seed=len(returns))
        env.action_space.seed(MOST + len(returns))  # another number, or the start and the actions would be drawn alike
        total, ended = 0.0, False
        while not ended:
            _, reward, terminated, truncated, _ = env.step(env.action_space.sample())
            total += float(reward)
            steps += 1
            ended = terminated or truncated
        returns.append(total)
    return returns


def trained_returns(name: str) -> dict[str, Any]:
    """Mean return of an agent that was trained in the first regime of the tasks of this world."""
    tasks = [id for id in TASKS if world(id) == name]
    learner = LEARNERS[name]
    start = time.process_time()
    venv = _copies(tasks[0], learner.copies, seed=0)
    trial = _copies(tasks[0], 1, seed=1000)
    if learner.normalized:
        venv = VecNormalize(venv)
        trial = VecNormalize(trial, training=False, norm_reward=False)
        trial.obs_rms = venv.obs_rms  # the very same, which training moves
    settings = copy.deepcopy(learner.settings)  # which SB3 writes into
    model = learner.algorithm("MlpPolicy", venv, seed=0, device="cpu", **settings).learn(learner.steps)
    mean, deviation = evaluate_policy(model, trial, TESTS)
    return {
        **told(learner),
        "tasks": tasks,
        "mean": round(float(mean), 2),
        "deviation": round(float(deviation), 2),
        "seconds": round(time.process_time() - start),
    }


def told(learner: Learner) -> dict[str, Any]:
    """A learner as JSON."""
    return {**vars(learner), "algorithm": learner.algorithm.__name__}


def _copies(id: str, copies: int, seed: int) -> VecEnv:
    return make_vec_env(lambda: frozen(id, 0), copies, seed=seed)


def main(say: Callable[[str], None] = print) -> None:
    """Measure what is not known yet, say what came out, and write each number down as it comes."""
    torch.set_num_threads(1)
    versions = {name: importlib.metadata.version(name) for name in ("stable_baselines3", "gymnasium", "mujoco")}
    kind = {
        "versions": versions | {"Python": platform.python_version()},
        "regimes": REGIMES,
        "episodes": {"fewest": FEWEST, "most": MOST, "steps": STEPS},
        "tests": TESTS,
    }
    before = json.loads(RESULT.read_text("utf-8")) if RESULT.is_file() else {}
    found = before if kind.items() <= before.items() else {**kind, "random": {}, "trained": {}}
    for id in TASKS:
        if id not in found["random"]:
            found["random"][id] = random_returns(id)
            _write(found)
        numbers = found["random"][id]
        say(f"{id:40} random {numbers['mean']:9.2f} {numbers['regimes']}")
    for name, learner in LEARNERS.items():
        if not told(learner).items() <= found["trained"].get(name, {}).items():
            found["trained"][name] = trained_returns(name)
            _write(found)
        numbers = found["trained"][name]
        say(f"{name:40} {numbers['algorithm']} {numbers['mean']:9.2f} in {numbers['seconds']} s")


def _write(found: dict[str, Any]) -> None:
    """Write it all down, in the order of the tables whatever was measured first."""
    ordered = {
        **found,
        "random": {id: found["random"][id] for id in TASKS if id in found["random"]},
        "trained": {name: found["trained"][name] for name in LEARNERS if name in found["trained"]},
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(ordered, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
