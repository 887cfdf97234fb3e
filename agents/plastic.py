"""Plasticity for any algorithm of SB3 and sb3-contrib: as a class, or put into a model that exists."""

from __future__ import annotations

from typing import Any, TypeVar

from stable_baselines3.common.base_class import BaseAlgorithm

from agents.algorithm import PlasticAlgorithm, random_seed
from agents.networks import policy_networks
from agents.policies import plastic_policy, with_mixin
from plasticity.registry import Methods, method_configs

Model = TypeVar("Model", bound=BaseAlgorithm)


def plastic(algorithm: type[BaseAlgorithm]) -> type[Any]:
    """The class of an SB3 algorithm with plasticity: `plastic(TD3)("MlpPolicy", env, plasticity="cbp")`.

    Takes what the algorithm takes, and `plasticity`; its `load` reads what `add_plasticity` models save, too. Of
    `stable_baselines3.PPO` it is `agents.PPO`.

    algorithm: any whose policy is actor-critic (PPO, A2C, TRPO, MaskablePPO, RecurrentPPO), an actor with critics (SAC,
        TD3, DDPG, TQC, and CrossQ without batch normalisation) or a Q-network (DQN, QR-DQN), on MLPs or CNNs; others
        are refused when a model is made.

    The policy of TRPO is changed by a line search and not by an optimizer, so there methods act on it once an update,
    after the search, and what they add to gradients has no effect on it.
    """
    return algorithm if issubclass(algorithm, PlasticAlgorithm) else with_mixin(PlasticAlgorithm, algorithm)


def add_plasticity(model: Model, plasticity: Methods = "cbp", seed: int | None = None) -> Model:
    """Turn an SB3 model, new or trained, into one whose networks keep their plasticity, in place; returns it.

    Weights, counters and buffers stay; Adam becomes UnitAdam with its moments and counts. Training then equals the
    stock one bit for bit until a method acts. Afterwards the model is a `plastic(type(model))`, which also loads it.

    plasticity: the methods, as `PlasticAlgorithm` takes them.
    seed: of the methods' random streams; None takes the model's own, or where it has none another one every time.
    Raises `ValueError` where the model has plasticity already, its policy is of no known structure, or a method asks
    for another architecture after training has begun.
    """
    if isinstance(model, PlasticAlgorithm):
        raise ValueError(f"this {type(model).__name__} has plasticity already; build a new one for other methods")
    method_configs(plasticity)  # whatever is wrong is found before anything is changed
    policy: Any = model.policy
    for network in policy_networks(policy).values():
        network.close()
    if seed is None:
        seed = random_seed() if model.seed is None else model.seed

    stock = type(policy)
    policy.__class__ = plastic_policy(stock)
    try:
        policy.make_plastic(plasticity, seed, adam={})
    except ValueError:
        policy.__class__ = stock
        raise
    model.__class__ = plastic(type(model))
    model.policy_class = type(policy)
    model.policy_kwargs = {
        **model.policy_kwargs,
        "plasticity": plasticity,
        "plasticity_seed": seed,
        "optimizer_class": policy.optimizer_class,
        "optimizer_kwargs": policy.optimizer_kwargs,
    }
    vars(model)["_optimizer_is_chosen"] = True
    return model
