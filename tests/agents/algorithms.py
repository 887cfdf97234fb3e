"""Every algorithm of SB3 and sb3-contrib that can have plasticity, small."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import sb3_contrib
import stable_baselines3 as sb3

from agents import plastic

ON_POLICY = {"n_steps": 64}
PPO_LIKE = ON_POLICY | {"batch_size": 32, "n_epochs": 2}
OFF_POLICY = {"learning_starts": 30, "batch_size": 16, "buffer_size": 1000}
Q_LEARNING = OFF_POLICY | {"train_freq": 2, "target_update_interval": 40}
NET = {"net_arch": [12, 8]}


class Masked(gym.Wrapper):
    """All actions are allowed, and it says so."""

    def action_masks(self):
        return [True] * int(self.action_space.n)


@dataclass(frozen=True)
class Case:
    """networks: their names; a run of `steps` environment steps makes some gradient steps."""

    algorithm: Any
    networks: tuple[str, ...]
    env: str = "CartPole-v1"
    kwargs: dict[str, Any] = field(default_factory=dict)
    policy_kwargs: dict[str, Any] = field(default_factory=dict)
    policy: str = "MlpPolicy"
    steps: int = 128

    def make(self, stock=False, **kwargs):
        algorithm = self.algorithm if stock else plastic(self.algorithm)
        given = {"policy_kwargs": NET | self.policy_kwargs, "seed": 0, "device": "cpu"}
        return algorithm(self.policy, self.environment(), **given | self.kwargs | kwargs)

    def environment(self):
        env = gym.make(self.env)
        return Masked(env) if self.algorithm is sb3_contrib.MaskablePPO else env


HEADS = ("pi", "vf")
ACTOR_CRITICS = ("actor", "qf0", "qf1")
CASES = {
    "PPO": Case(sb3.PPO, HEADS, kwargs=PPO_LIKE),
    "A2C": Case(sb3.A2C, HEADS, kwargs={"n_steps": 16}),
    "A2C Adam": Case(sb3.A2C, HEADS, kwargs={"n_steps": 16, "use_rms_prop": False}),
    "SAC": Case(sb3.SAC, ACTOR_CRITICS, "Pendulum-v1", OFF_POLICY, steps=60),
    "TD3": Case(sb3.TD3, ACTOR_CRITICS, "Pendulum-v1", OFF_POLICY, steps=60),
    "DDPG": Case(sb3.DDPG, ACTOR_CRITICS[:2], "Pendulum-v1", OFF_POLICY, steps=60),
    "DQN": Case(sb3.DQN, ("q_net",), kwargs=Q_LEARNING, steps=100),
    "QRDQN": Case(sb3_contrib.QRDQN, ("quantile_net",), kwargs=Q_LEARNING, policy_kwargs={"n_quantiles": 5}, steps=100),
    "TQC": Case(sb3_contrib.TQC, ACTOR_CRITICS, "Pendulum-v1", OFF_POLICY, steps=60),
    "CrossQ": Case(
        sb3_contrib.CrossQ, ACTOR_CRITICS, "Pendulum-v1", OFF_POLICY, policy_kwargs={"batch_norm": False}, steps=60
    ),
    "TRPO": Case(sb3_contrib.TRPO, HEADS, kwargs=ON_POLICY | {"batch_size": 32}),
    "MaskablePPO": Case(sb3_contrib.MaskablePPO, HEADS, kwargs=PPO_LIKE),
    "RecurrentPPO": Case(
        sb3_contrib.RecurrentPPO,
        HEADS,
        kwargs=PPO_LIKE,
        policy_kwargs={"lstm_hidden_size": 8},
        policy="MlpLstmPolicy",
    ),
}
