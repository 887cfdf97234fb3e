"""The networks of actor-critic policies: PPO, A2C, TRPO, MaskablePPO and RecurrentPPO."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from agents.extractors import extractor_modules, first_linear, own_linears
from plasticity import HiddenLayer, Network, NoiseReader, hidden_layers


def actor_critic_networks(policy: Any) -> dict[str, Network]:
    """`pi` and `vf`, and `features` where both read one extractor with hidden layers.

    `features` comes last, and so acts last: the weights between a unit it replaces and one that a head has just drawn
    afresh end as zero.

    With separate extractors each belongs to its own network; networks without hidden layers are left out.
    """
    pi, vf = list(policy.mlp_extractor.policy_net), list(policy.mlp_extractor.value_net)
    shared = extractor_modules(policy.features_extractor) if policy.share_features_extractor else []
    if not policy.share_features_extractor:
        pi = extractor_modules(policy.pi_features_extractor) + pi
        vf = extractor_modules(policy.vf_features_extractor) + vf
    noise = _noise(policy)
    found = _heads(policy, pi, vf)
    if shared:
        readers = [first_linear([*pi, policy.action_net]), first_linear([*vf, policy.value_net])]
        found["features"] = hidden_layers(shared, readers, [] if pi else noise)
    return _networks(policy, found)


def recurrent_networks(policy: Any) -> dict[str, Network]:
    """`pi` and `vf`, which read what the LSTMs put out, and what the LSTMs read if that has hidden layers.

    That is `features`, or `pi_features` and `vf_features` where the extractors are separate. The LSTMs themselves (and
    the linear layer that stands in for the critic's) belong to no network: their units are never replaced, nor their
    weights regularised; only what reads a replaced unit is silenced. Sequences are padded in training, and the rows of
    padding count as the others do.
    """
    found = _heads(policy, list(policy.mlp_extractor.policy_net), list(policy.mlp_extractor.value_net))
    reads_pi = [_gates(policy.lstm_actor)]
    reads_vf = [_gates(policy.lstm_critic)] if policy.lstm_critic is not None else []
    reads_vf = reads_vf if policy.critic is None else [policy.critic]
    if policy.share_features_extractor:
        chains = {"features": (policy.features_extractor, reads_pi + reads_vf)}
    else:
        chains = {
            "pi_features": (policy.pi_features_extractor, reads_pi),
            "vf_features": (policy.vf_features_extractor, reads_vf),
        }
    for name, (extractor, readers) in chains.items():
        modules = extractor_modules(extractor)
        found[name] = hidden_layers(modules, readers) if modules else []
    return _networks(policy, found, exclude=reads_pi + reads_vf)


def _gates(lstm: nn.LSTM) -> nn.Linear:
    """How an LSTM reads its inputs: as a linear layer that shares its parameters."""
    linear: Any = nn.Linear(lstm.input_size, 4 * lstm.hidden_size, device="meta")  # which draws no random numbers
    linear.weight, linear.bias = lstm.weight_ih_l0, lstm.bias_ih_l0
    return linear  # type: ignore[no-any-return]


def _noise(policy: Any) -> list[NoiseReader]:
    """gSDE: the latent scales the noise."""
    return [NoiseReader(policy.log_std, policy.log_std_init)] if getattr(policy, "use_sde", False) else []


def _heads(policy: Any, pi: list[nn.Module], vf: list[nn.Module]) -> dict[str, list[HiddenLayer]]:
    return {
        "pi": hidden_layers(pi, [policy.action_net], _noise(policy)) if pi else [],
        "vf": hidden_layers(vf, [policy.value_net]) if vf else [],
    }


def _networks(
    policy: Any, found: dict[str, list[HiddenLayer]], exclude: Sequence[nn.Module] = ()
) -> dict[str, Network]:
    log_std = getattr(policy, "log_std", None)
    owner = "pi" if found["pi"] else "features"
    return {
        name: Network(
            name,
            layers,
            [policy.optimizer],
            linears=own_linears(layers, [other for key, other in found.items() if key != name], exclude),
            log_std=[log_std] if name == owner and log_std is not None else (),
        )
        for name, layers in found.items()
        if layers
    }


def actor_critic_pass(policy: Any, observations: Tensor, actions: Tensor | None) -> None:
    """One forward pass through `pi` and `vf`; actions are not looked at."""
    features = policy.extract_features(observations)
    if isinstance(features, tuple):
        policy.mlp_extractor.forward_actor(features[0])
        policy.mlp_extractor.forward_critic(features[1])
    else:
        policy.mlp_extractor(features)


def recurrent_pass(policy: Any, observations: Tensor, actions: Tensor | None) -> None:
    """The same where each observation is the first of an episode: the LSTMs start from zero."""
    layers, _, units = policy.lstm_hidden_state_shape
    rows = len(observations)
    zero = torch.zeros(layers, rows, units, device=policy.device)
    states = SimpleNamespace(pi=(zero, zero), vf=(zero, zero))
    policy.forward(observations, states, torch.zeros(rows, device=policy.device), deterministic=True)
