"""SB3 policy -> networks: which hidden layers each has, who reads them, and which optimizer trains them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gymnasium import spaces
from stable_baselines3.common.policies import BaseModel
from torch import Tensor, nn

from agents.off_policy import actor_and_critics_networks, actor_and_critics_pass, q_networks, q_pass
from agents.on_policy import actor_critic_networks, actor_critic_pass, recurrent_networks, recurrent_pass
from plasticity import Network


@dataclass(frozen=True)
class Family:
    """Policies of one structure.

    parts: the attributes by which one is known.
    networks: describes a policy's networks, by name.
    forward: (policy, observations, actions) -> one pass through each of them, without random numbers.
    """

    parts: tuple[str, ...]
    networks: Callable[[nn.Module], dict[str, Network]]
    forward: Callable[[nn.Module, Tensor, Tensor | None], None]


FAMILIES = (
    Family(("mlp_extractor", "lstm_actor"), recurrent_networks, recurrent_pass),  # before those without memory
    Family(("mlp_extractor", "action_net", "value_net"), actor_critic_networks, actor_critic_pass),
    Family(("actor", "critic"), actor_and_critics_networks, actor_and_critics_pass),
    Family(("quantile_net", "quantile_net_target"), q_networks, q_pass),
    Family(("q_net", "q_net_target"), q_networks, q_pass),
)


def family_of(policy: nn.Module) -> Family:
    """The family of a policy; raises `ValueError` where there is none."""
    for family in FAMILIES:
        if all(hasattr(policy, part) for part in family.parts):
            return family
    known = "; ".join(", ".join(family.parts) for family in FAMILIES)
    raise ValueError(
        f"{type(policy).__name__} has none of the structures that are known (by their attributes: {known}); describe "
        "its networks in a subclass of agents.PlasticPolicy with describe() and forward_networks()"
    )


def policy_networks(policy: BaseModel) -> dict[str, Network]:
    """The networks of an SB3 policy by name, such as `pi` and `vf`, or `actor`, `qf0` and `qf1`.

    Raises `ValueError` where its structure is unknown or one of its modules mixes units.
    """
    if isinstance(policy.observation_space, spaces.Dict):
        raise ValueError(
            f"{type(policy).__name__}: there is no plasticity for dictionary observations yet; flatten them, as "
            "gymnasium.wrappers.FlattenObservation does"
        )
    return family_of(policy).networks(policy)
