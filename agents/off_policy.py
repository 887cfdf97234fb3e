"""The networks of policies with target networks: SAC, TQC, TD3 and DDPG; DQN and QR-DQN."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn

from agents.extractors import extractor_modules, first_linear, linears, own_linears
from plasticity import HiddenLayer, Network, NoiseReader, Reader, hidden_layers
from plasticity.layers import weight_of


def actor_and_critics_networks(policy: Any) -> dict[str, Network]:
    """`actor`, `qf0`, `qf1`, ..., and `qf_features` where the critics read an extractor with hidden layers.

    Target networks are no networks of their own: they follow. An algorithm may have none (CrossQ).
    """
    critic, target = policy.critic, getattr(policy, "critic_target", None)
    networks = {"actor": _actor_network(policy)}
    sets, twins = _critics_layers(critic), _critics_layers(target)
    for i, layers in enumerate(sets):
        networks[f"qf{i}"] = Network(f"qf{i}", layers, [critic.optimizer], twins=twins[i] if twins else ())
    if not policy.share_features_extractor and extractor_modules(critic.features_extractor):
        layers, twin = _extractor_layers(critic), _extractor_layers(target)
        networks["qf_features"] = Network(
            "qf_features", layers, [critic.optimizer], linears=own_linears(layers, sets), twins=twin
        )
    return {name: network for name, network in networks.items() if network.layers}


def _actor_network(policy: Any) -> Network:
    actor, target = policy.actor, getattr(policy, "actor_target", None)
    shared = policy.share_features_extractor and bool(extractor_modules(actor.features_extractor))
    layers = _actor_layers(actor, policy.critic if shared else None)
    twins: list[HiddenLayer] = []
    if target is not None:
        twins = _actor_layers(target, policy.critic_target if shared else None)
    elif shared:  # SAC's target critics keep an extractor of their own
        twins = _extractor_layers(getattr(policy, "critic_target", None))
    log_std = getattr(actor, "log_std", None)
    own = own_linears(layers, [], exclude=_inputs(policy.critic) if shared else [])
    optimizers = [actor.optimizer, policy.critic.optimizer] if shared else [actor.optimizer]
    free = [log_std] if isinstance(log_std, nn.Parameter) else []
    return Network("actor", layers, optimizers, linears=own, log_std=free, twins=twins)


def _actor_layers(actor: Any, critic: Any | None) -> list[HiddenLayer]:
    """critic: one that reads the actor's extractor too."""
    body, heads, noise = _actor_parts(actor)
    modules = extractor_modules(actor.features_extractor)
    if critic is None:
        return hidden_layers(modules + body, heads, noise) if modules + body else []
    own: list[nn.Module] = [first_linear(body)] if body else heads
    layers = hidden_layers(modules, [*own, *_feature_readers(critic)], [] if body else noise)
    rest = hidden_layers(body, heads, noise) if body else []
    return layers + [replace(layer, name=str(len(layers) + i)) for i, layer in enumerate(rest)]


def _actor_parts(actor: Any) -> tuple[list[nn.Module], list[nn.Module], list[NoiseReader]]:
    """The hidden part, the heads that read it, and the noise it scales."""
    if not hasattr(actor, "latent_pi"):  # TD3: what squashes the action is no hidden layer
        *body, head, squash = actor.mu
        if not (isinstance(head, nn.Linear) and isinstance(squash, nn.Tanh)):
            raise ValueError(f"an actor without latent_pi needs a `mu` that ends in Linear and Tanh, got {actor.mu}")
        return body, [head], []
    if isinstance(actor.log_std, nn.Parameter):  # gSDE: the latent scales the noise, and `mu` may be clipped
        return list(actor.latent_pi), [first_linear([actor.mu])], [NoiseReader(actor.log_std, actor.log_std_init)]
    return list(actor.latent_pi), [actor.mu, actor.log_std], []


def _critics_layers(critic: Any | None) -> list[list[HiddenLayer]]:
    return [] if critic is None else [hidden_layers(q) for q in critic.q_networks]


def _extractor_layers(critic: Any | None) -> list[HiddenLayer]:
    """The hidden layers of the extractor that critics read."""
    if critic is None:
        return []
    return hidden_layers(extractor_modules(critic.features_extractor), _feature_readers(critic))


def _inputs(critic: Any) -> list[nn.Module]:
    """Each critic's first layer."""
    return [first_linear([q]) for q in critic.q_networks]


def _feature_readers(critic: Any) -> Sequence[Reader]:
    """Each critic's first layer reads the features and, after them, the action."""
    extractor: BaseFeaturesExtractor = critic.features_extractor
    last = linears(extractor_modules(extractor))[-1]
    return [Reader(linear, span=extractor.features_dim // weight_of(last).shape[0]) for linear in _inputs(critic)]


def actor_and_critics_pass(policy: Any, observations: Tensor, actions: Tensor | None) -> None:
    """One forward pass through the actor and its critics."""
    if actions is None:
        raise ValueError("the critics need actions as well as observations")
    if hasattr(policy.actor, "latent_pi"):
        policy.actor.get_action_dist_params(observations)  # sampling would draw random numbers
    else:
        policy.actor(observations)
    policy.critic(observations, actions)


def q_networks(policy: Any) -> dict[str, Network]:
    """`q_net` of DQN, or `quantile_net` of QR-DQN, with its extractor; the target network follows."""
    name = _q_name(policy)
    layers, twins = (_q_layers(getattr(policy, attribute), name) for attribute in (name, f"{name}_target"))
    return {name: Network(name, layers, [policy.optimizer], twins=twins)} if layers else {}


def _q_name(policy: Any) -> str:
    return "quantile_net" if hasattr(policy, "quantile_net") else "q_net"


def _q_layers(network: Any, name: str) -> list[HiddenLayer]:
    return hidden_layers([*extractor_modules(network.features_extractor), *getattr(network, name)])


def q_pass(policy: Any, observations: Tensor, actions: Tensor | None) -> None:
    """One forward pass through the Q-network; actions are not looked at."""
    getattr(policy, _q_name(policy))(observations)
