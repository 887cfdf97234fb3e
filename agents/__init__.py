"""Stable-Baselines3 agents that keep their plasticity.

from agents import PPO, PlasticityMonitor, RegimeClock

model = PPO("MlpPolicy", env, plasticity={"cbp": {"replacement_rate": 1e-4, "maturity": 1000}}, seed=0)
model.learn(100_000, callback=[RegimeClock(), PlasticityMonitor()])
"""

from agents.clock import RegimeClock, target_values
from agents.monitor import PlasticityMonitor
from agents.networks import actor_critic_networks, extractor_modules, sac_networks
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
    "PlasticActorCriticCnnPolicy",
    "PlasticActorCriticPolicy",
    "PlasticPolicy",
    "PlasticSACCnnPolicy",
    "PlasticSACPolicy",
    "PlasticityMonitor",
    "RegimeClock",
    "actor_critic_networks",
    "extractor_modules",
    "sac_networks",
    "target_values",
]
