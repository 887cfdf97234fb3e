"""Stable-Baselines3 agents that keep their plasticity.

from agents import PPO, PlasticityMonitor, RegimeClock

model = PPO("MlpPolicy", env, plasticity={"cbp": {"replacement_rate": 1e-4, "maturity": 1000}}, seed=0)
model.learn(100_000, callback=[RegimeClock(), PlasticityMonitor()])

Other algorithms of SB3 and sb3-contrib: `plastic(TD3)("MlpPolicy", env, plasticity="cbp")`, or `add_plasticity(model)`.
"""

from agents.adaptation import (
    Adaptation,
    average_return,
    backward_transfer,
    forgetting,
    forward_transfer,
    recovery_steps,
)
from agents.alarms import Alarms
from agents.batched import BatchedVecEnv
from agents.clock import RegimeClock, target_values
from agents.evaluation import Evaluation, ForgettingEvaluation, Stretch
from agents.extractors import extractor_modules
from agents.finite import GradientGuard, non_finite
from agents.monitor import PlasticityMonitor
from agents.networks import policy_networks
from agents.plastic import add_plasticity, plastic
from agents.policies import (
    PlasticActorCriticCnnPolicy,
    PlasticActorCriticPolicy,
    PlasticPolicy,
    PlasticSACCnnPolicy,
    PlasticSACPolicy,
)
from agents.ppo import PPO
from agents.sac import SAC

__all__ = [
    "PPO",
    "SAC",
    "Adaptation",
    "Alarms",
    "BatchedVecEnv",
    "Evaluation",
    "ForgettingEvaluation",
    "GradientGuard",
    "PlasticActorCriticCnnPolicy",
    "PlasticActorCriticPolicy",
    "PlasticPolicy",
    "PlasticSACCnnPolicy",
    "PlasticSACPolicy",
    "PlasticityMonitor",
    "RegimeClock",
    "Stretch",
    "add_plasticity",
    "average_return",
    "backward_transfer",
    "extractor_modules",
    "forgetting",
    "forward_transfer",
    "non_finite",
    "plastic",
    "policy_networks",
    "recovery_steps",
    "target_values",
]
