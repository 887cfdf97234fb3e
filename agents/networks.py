"""SB3 policy -> networks: which hidden layers each has, who reads them, and which optimizer trains them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from stable_baselines3.common.policies import ActorCriticPolicy, ContinuousCritic
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, FlattenExtractor, NatureCNN
from stable_baselines3.sac.policies import Actor, SACPolicy
from torch import nn

from plasticity import HiddenLayer, Network, NoiseReader, Reader, hidden_layers
from plasticity.layers import CONVOLUTIONS, weight_of


def actor_critic_networks(policy: ActorCriticPolicy) -> dict[str, Network]:
    """`pi` and `vf` of PPO or A2C, and `features` where both read one extractor with hidden layers.

    `features` comes last, and so acts last: the weights between a unit it replaces and one that a head has just drawn
    afresh end as zero.

    With separate extractors each belongs to its own network; networks without hidden layers are left out.
    """
    pi, vf = list(policy.mlp_extractor.policy_net), list(policy.mlp_extractor.value_net)
    log_std = getattr(policy, "log_std", None)
    noise = [NoiseReader(log_std, policy.log_std_init)] if policy.use_sde and log_std is not None else []
    shared = extractor_modules(policy.features_extractor) if policy.share_features_extractor else []
    if not policy.share_features_extractor:
        pi = extractor_modules(policy.pi_features_extractor) + pi
        vf = extractor_modules(policy.vf_features_extractor) + vf
    found = {
        "pi": hidden_layers(pi, [policy.action_net], noise) if pi else [],
        "vf": hidden_layers(vf, [policy.value_net]) if vf else [],
    }
    if shared:
        readers = [_first_linear([*pi, policy.action_net]), _first_linear([*vf, policy.value_net])]
        found["features"] = hidden_layers(shared, readers, [] if pi else noise)
    owner = "pi" if found["pi"] else "features"
    return {
        name: Network(
            name,
            layers,
            [policy.optimizer],
            linears=_own_linears(layers, [other for key, other in found.items() if key != name]),
            log_std=[log_std] if name == owner and log_std is not None else (),
        )
        for name, layers in found.items()
        if layers
    }


def sac_networks(policy: SACPolicy) -> dict[str, Network]:
    """`actor`, `qf0`, `qf1`, ..., and `qf_features` where the critics read an extractor with hidden layers.

    Target critics are no networks of their own: they follow.
    """
    critic = policy.critic
    sets = [_critic_layers(critic, i) for i in range(critic.n_critics)]
    twins = [_critic_layers(policy.critic_target, i) for i in range(critic.n_critics)]
    first = [_first_linear([q]) for q in critic.q_networks]  # reads the features and, after them, the action
    networks = {"actor": _actor_network(policy, first if policy.share_features_extractor else [])}
    for i, (layers, twin) in enumerate(zip(sets, twins, strict=True)):
        networks[f"qf{i}"] = Network(f"qf{i}", layers, [critic.optimizer], twins=twin)
    if not policy.share_features_extractor and extractor_modules(critic.features_extractor):
        layers, twin = _extractor_layers(critic), _extractor_layers(policy.critic_target)
        networks["qf_features"] = Network(
            "qf_features", layers, [critic.optimizer], linears=_own_linears(layers, sets), twins=twin
        )
    return {name: network for name, network in networks.items() if network.layers}


def _actor_network(policy: SACPolicy, critic_inputs: Sequence[nn.Module]) -> Network:
    actor = policy.actor
    body, modules = list(actor.latent_pi), extractor_modules(actor.features_extractor)
    heads, noise = _actor_heads(actor)
    twins: list[HiddenLayer] = []
    if modules and critic_inputs:  # the critics read the actor's extractor too
        readers = [_feature_reader(linear, actor.features_extractor) for linear in critic_inputs]
        layers = hidden_layers(modules, [_first_linear([*body, *heads]), *readers])
        twins = _extractor_layers(policy.critic_target)  # the target critics keep an extractor of their own
        rest = hidden_layers(body, heads, noise) if body else []
        layers += [replace(layer, name=str(len(layers) + i)) for i, layer in enumerate(rest)]
    else:
        layers = hidden_layers(modules + body, heads, noise) if modules + body else []
    log_std = [actor.log_std] if isinstance(actor.log_std, nn.Parameter) else []
    own = _own_linears(layers, [], exclude=critic_inputs)
    optimizers = [actor.optimizer, policy.critic.optimizer] if critic_inputs else [actor.optimizer]
    return Network("actor", layers, optimizers, linears=own, log_std=log_std, twins=twins)


def _actor_heads(actor: Actor) -> tuple[list[nn.Module], list[NoiseReader]]:
    log_std: nn.Module | nn.Parameter = actor.log_std
    if isinstance(log_std, nn.Parameter):  # gSDE: the latent scales the noise, and `mu` may be clipped
        return [_first_linear([actor.mu])], [NoiseReader(log_std, actor.log_std_init)]
    return [actor.mu, log_std], []


def _extractor_layers(critic: ContinuousCritic) -> list[HiddenLayer]:
    """The hidden layers of the extractor that critics read."""
    extractor = critic.features_extractor
    readers = [_feature_reader(_first_linear([q]), extractor) for q in critic.q_networks]
    return hidden_layers(extractor_modules(extractor), readers)


def _critic_layers(critic: ContinuousCritic, i: int) -> list[HiddenLayer]:
    modules = critic.q_networks[i]
    assert isinstance(modules, nn.Sequential)
    return hidden_layers(modules)


def _feature_reader(linear: nn.Module, extractor: BaseFeaturesExtractor) -> Reader:
    """A critic's first layer: it reads the features and, after them, the action."""
    last = _linears(extractor_modules(extractor))[-1]
    return Reader(linear, span=extractor.features_dim // weight_of(last).shape[0])


def extractor_modules(extractor: nn.Module) -> list[nn.Module]:
    """The modules of a features extractor in order: none for flattening, convolutions and a linear layer for NatureCNN.

    An extractor of one's own offers them as `plastic_modules()`, a list as `plasticity.hidden_layers` takes it.
    """
    if hasattr(extractor, "plastic_modules"):
        return list(extractor.plastic_modules())  # type: ignore[operator]
    if type(extractor) is FlattenExtractor:  # a subclass may have layers of its own
        return []
    if type(extractor) is NatureCNN:
        return [*extractor.cnn, *extractor.linear]
    raise ValueError(
        f"features extractor {type(extractor).__name__} has hidden layers that nobody described: allowed are "
        "FlattenExtractor, NatureCNN, or one with a method plastic_modules() that lists its layers in order"
    )


def _linears(modules: Iterable[nn.Module]) -> list[nn.Module]:
    return [part for module in modules for part in module.modules() if isinstance(part, (nn.Linear, *CONVOLUTIONS))]


def _first_linear(modules: Iterable[nn.Module]) -> nn.Module:
    return _linears(modules)[0]


def _own_linears(
    layers: Sequence[HiddenLayer], others: Iterable[Sequence[HiddenLayer]], exclude: Sequence[nn.Module] = ()
) -> list[nn.Module]:
    """Hidden layers and readers, less those that another network counts among its hidden layers."""
    foreign = {layer.linear for other in others for layer in other} | set(exclude)
    every = [layer.linear for layer in layers] + [reader.linear for layer in layers for reader in layer.readers]
    return [linear for linear in dict.fromkeys(every) if linear not in foreign]
