"""From validated settings to an agent: the only place that maps our names onto SB3's arguments."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import torch
from stable_baselines3.common.vec_env import VecEnv

from agents import PPO, SAC
from experiments.agent_settings import ACTIVATIONS, PPOSettings, SACSettings
from experiments.schema import Config

# Fields of the settings that are not arguments of the algorithm but of its networks and optimizer
_POLICY_FIELDS = (
    "algorithm",
    "policy",
    "net_arch",
    "critic_net_arch",
    "activation",
    "init",
    "betas",
    "eps",
    "weight_decay",
    "decoupled",
    "n_critics",
    "target_critic",
    "log_std_init",
)


def build_model(config: Config, env: VecEnv) -> PPO | SAC:
    """The agent of this configuration, untrained; nothing is written and nothing is printed."""
    agent = config.agent
    arguments = {key: value for key, value in asdict(agent).items() if key not in _POLICY_FIELDS}
    algorithm: Any = PPO if isinstance(agent, PPOSettings) else SAC
    model: PPO | SAC = algorithm(
        agent.policy,
        env,
        plasticity=config.plasticity,
        policy_kwargs=policy_arguments(agent),
        seed=config.seed,
        device=config.device,
        verbose=0,
        **arguments,
    )
    return model


def device_faults(config: Config) -> list[str]:
    """One sentence if the device is not there; SB3 would quietly take the CPU instead."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(config.device, True):
        return [f"device {config.device} is not available here; use device=cpu, or device=auto to take what is there"]
    return []


def policy_arguments(agent: PPOSettings | SACSettings) -> dict[str, Any]:
    """SB3's `policy_kwargs`. Adam's eps is always given: SB3's default depends on what else is."""
    actor = list(agent.net_arch)
    critic = actor if agent.critic_net_arch is None else list(agent.critic_net_arch)
    arguments: dict[str, Any] = {
        "net_arch": {"pi": actor, "vf" if isinstance(agent, PPOSettings) else "qf": critic},
        "activation_fn": ACTIVATIONS[agent.activation],
        "init": agent.init,
        "optimizer_kwargs": {
            "betas": agent.betas,
            "eps": agent.eps,
            "weight_decay": agent.weight_decay,
            "decoupled": agent.decoupled,
        },
    }
    if isinstance(agent, PPOSettings):
        arguments["log_std_init"] = agent.log_std_init
    else:
        arguments |= {"n_critics": agent.n_critics, "target_critic": agent.target_critic}
    return arguments


def planned_steps(config: Config) -> int:
    """Environment steps that will be taken: `total_steps` rounded up to whole rollouts."""
    agent = config.agent
    per_rollout = (agent.n_steps if isinstance(agent, PPOSettings) else agent.train_freq) * config.env.n_envs
    return math.ceil(config.total_steps / per_rollout) * per_rollout


def gradient_steps_per_step(config: Config) -> float:
    """Gradient steps for one environment step (all sub-environments together), once learning has started."""
    agent = config.agent
    if isinstance(agent, PPOSettings):
        rollout = agent.n_steps * config.env.n_envs
        return agent.n_epochs * math.ceil(rollout / agent.batch_size) / rollout
    if agent.gradient_steps == -1:
        return 1.0
    return agent.gradient_steps / (agent.train_freq * config.env.n_envs)
