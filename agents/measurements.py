"""What can be measured of a policy's networks: pure functions that leave no trace; tags lack `plasticity/`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from stable_baselines3.sac.policies import Actor
from torch import Tensor, nn
from torch.distributions import Normal

from agents.policies import PlasticPolicy
from plasticity import (
    HiddenLayer,
    Network,
    activation_metrics,
    copied,
    landscape_metrics,
    plasticity_probe,
    weight_metrics,
)
from plasticity.parallel import side_by_side

Batch: TypeAlias = tuple[Tensor, Tensor | None]  # observations, and actions where critics need them
SHARES = ("dead_fraction", "dormant_fraction", "dormant_fraction_0.1", "zero_fraction", "saturated_fraction")
OF_THE_LAST = ("effective_rank", "srank", "approximate_rank", "stable_rank", "numerical_rank", "feature_norm")
ENTROPY_SEED = 0


@dataclass(frozen=True)
class Look:
    """One pass of a batch through all networks.

    activations: [network][layer], as activations put them out; inputs: [network], what its first hidden layer read.
    """

    activations: dict[str, dict[str, Tensor]]
    inputs: dict[str, Tensor]


def look(policy: PlasticPolicy, batch: Batch) -> Look:
    """Pass a batch through all networks, in evaluation mode and without gradients."""
    observations, actions = batch
    inputs: dict[str, Tensor] = {}
    handles = [_keep_inputs(inputs, name, network) for name, network in policy.networks.items()]
    try:
        seen = policy.activations(
            observations.to(policy.device), None if actions is None else actions.to(policy.device)
        )
    finally:
        for handle in handles:
            handle.remove()
    return Look(seen, inputs)


def _keep_inputs(into: dict[str, Tensor], name: str, network: Network) -> Any:
    def keep(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        into[name] = args[0].detach()

    return network.layers[0].linear.register_forward_pre_hook(keep)


def of_activations(policy: PlasticPolicy, seen: Look, prefix: str = "") -> dict[str, float]:
    """Dead and dormant units, ranks and so on: of each layer, and of each network as a whole."""
    numbers: dict[str, float] = {}
    put_out = [seen.activations[name][layer.name] for name, n in policy.networks.items() for layer in n.layers]
    measured = _each(policy, activation_metrics, _layers(policy), put_out)
    for name, network in policy.networks.items():
        layers = {layer.name: next(measured) for layer in network.layers}
        numbers |= {f"{name}/{layer}/{prefix}{key}": v for layer, found in layers.items() for key, v in found.items()}
        for key in SHARES:
            if all(key in found for found in layers.values()):
                shares, units = [found[key] for found in layers.values()], [layer.units for layer in network.layers]
                numbers[f"{name}/{prefix}{key}"] = float(np.average(shares, weights=units))
        last = layers[network.layers[-1].name]
        numbers |= {f"{name}/{prefix}{key}": last[key] for key in OF_THE_LAST if key in last}
    return numbers


def of_weights(policy: PlasticPolicy, initial: Mapping[str, Mapping[str, Tensor]]) -> dict[str, float]:
    """Sizes of weights, the last measured gradient step, and what the methods tell of themselves.

    initial: the first parameters, by network, as `plasticity.copied` names them; networks may be missing.
    """
    numbers: dict[str, float] = {}
    weights = [layer.weight for layer in _layers(policy)]
    measured = _each(policy, weight_metrics, weights, _first_weights(policy, initial))
    for name, network in policy.networks.items():
        for layer in network.layers:
            numbers |= {f"{name}/{layer.name}/{key}": value for key, value in next(measured).items()}
        magnitudes = [numbers[f"{name}/{layer.name}/weight_magnitude"] for layer in network.layers]
        numbers[f"{name}/weight_magnitude"] = float(np.mean(magnitudes))
        intervention: Any = policy.plasticity[name]
        told = {**policy.step_metrics[name].telemetry(), **intervention.telemetry()}
        numbers |= {f"{name}/{key}": value for key, value in told.items()}
        counts = [value for key, value in told.items() if key.endswith("/replaced")]
        if counts:
            numbers[f"{name}/replaced"] = sum(counts)
    return numbers


def _layers(policy: PlasticPolicy) -> list[HiddenLayer]:
    return [layer for network in policy.networks.values() for layer in network.layers]


def _each(
    policy: PlasticPolicy, act: Callable[..., dict[str, float]], *arguments: Iterable[Any]
) -> Iterator[dict[str, float]]:
    """`map`, on the CPU with all its cores."""
    return iter(side_by_side(act, *arguments)) if policy.device.type == "cpu" else map(act, *arguments)


def _first_weights(policy: PlasticPolicy, initial: Mapping[str, Mapping[str, Tensor]]) -> Iterator[Tensor | None]:
    """Of each hidden layer, where they are known."""
    for name, network in policy.networks.items():
        for i, layer in enumerate(network.layers):
            yield initial[name][f"linear{i}.weight"].to(layer.weight) if name in initial else None


def outputs(policy: PlasticPolicy, seen: Look) -> dict[str, Tensor]:
    """(rows, outputs) of each network: of its readers, or of its last hidden layer if these read other things too."""
    found = {}
    with torch.no_grad():
        for name, network in policy.networks.items():
            last = seen.activations[name][network.layers[-1].name]
            if _is_function(network):
                found[name] = torch.cat([output.flatten(1) for output in network.read_out(last)], 1)
            else:
                found[name] = last.flatten(1)
    return found


def churn(before: Mapping[str, Tensor], now: Mapping[str, Tensor]) -> dict[str, float]:
    """`<network>/churn`: mean |change| of each output on the same rows; nothing for networks without a before.

    Source: Tang & Berseth, NeurIPS 2024, arXiv 2409.04792. There it is the change that one update makes on data outside
    of its minibatch; here that of all updates between two measurements, on the frozen probe batch.
    """
    both = [name for name in now if name in before]
    return {f"{name}/churn": float((now[name] - before[name].to(now[name])).abs().mean()) for name in both}


def policy_entropy(policy: PlasticPolicy, batch: Batch, prefix: str = "") -> dict[str, float]:
    """`actor/policy_entropy` of SAC, in nats: a mean of -log pi(a|s), one action for each row, always the same noise.

    The other algorithms' entropy is SB3's own `train/entropy_loss`.
    """
    actor = getattr(policy, "actor", None)
    if not isinstance(actor, Actor):
        return {}
    with evaluating(policy), torch.no_grad():
        mean, log_std, more = actor.get_action_dist_params(batch[0].to(policy.device))
        # a copy, because the distribution that it makes stays in it
        gaussian = copy.copy(actor.action_dist).proba_distribution(mean, log_std, **more).distribution
    assert isinstance(gaussian, Normal)
    noise = torch.randn(gaussian.mean.shape, generator=torch.Generator().manual_seed(ENTROPY_SEED)).to(mean)
    action = gaussian.mean + gaussian.stddev * noise
    log_slope = 2 * (np.log(2) - action - nn.functional.softplus(-2 * action))  # of tanh, exact where it is flat
    log_probability = (gaussian.log_prob(action) - log_slope).sum(-1)  # type: ignore[no-untyped-call]
    return {f"actor/{prefix}policy_entropy": -float(log_probability.mean())}


def initial_parameters(policy: PlasticPolicy) -> dict[str, dict[str, Tensor]]:
    """A copy of the hidden layers' parameters as they are now, by network, as `plasticity.copied` names them."""
    return {name: copied(network.layers).state_dict() for name, network in policy.networks.items()}


def gaps(
    policy: PlasticPolicy, inputs: Mapping[str, Tensor], initial: Mapping[str, Mapping[str, Tensor]]
) -> dict[str, float]:
    """The plasticity probe of each network, compared with its own first parameters where they are known."""
    numbers: dict[str, float] = {}
    for name, network in policy.networks.items():
        fresh = None
        if name in initial:
            fresh = copied(network.layers)
            fresh.load_state_dict(initial[name])
        result = plasticity_probe(network.layers, inputs[name], fresh=fresh)
        numbers |= {f"{name}/{key}": value for key, value in result.metrics().items()}
    return numbers


def landscapes(policy: PlasticPolicy, inputs: Mapping[str, Tensor]) -> dict[str, float]:
    """The loss landscape around each network that is a function of its inputs alone."""
    numbers: dict[str, float] = {}
    for name, network in policy.networks.items():
        if _is_function(network):
            numbers |= {f"{name}/{key}": value for key, value in landscape_metrics(network, inputs[name]).items()}
    return numbers


def histograms(policy: PlasticPolicy) -> dict[str, Tensor]:
    """What the methods offer as distributions, by tag."""
    methods: Iterable[tuple[str, Any]] = policy.plasticity.items()
    return {f"{name}/{key}": values for name, method in methods for key, values in method.histograms().items()}


@contextmanager
def evaluating(policy: PlasticPolicy) -> Iterator[None]:
    """Evaluation mode inside the block, and afterwards the mode there was."""
    training = policy.training
    policy.set_training_mode(False)
    try:
        yield
    finally:
        policy.set_training_mode(training)


def _is_function(network: Network) -> bool:
    try:
        network.heads()
    except ValueError:
        return False
    return True
