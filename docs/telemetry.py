"""The names of all numbers that Pliant logs, found by training a small network and looking at what comes out."""

from __future__ import annotations

import functools

import torch
from torch import nn

from plasticity import (
    METHODS,
    Network,
    StepMetrics,
    UnitAdam,
    activation_metrics,
    attach,
    build_intervention,
    hidden_layers,
    landscape_metrics,
    network_options,
    plasticity_probe,
    rebuild,
    weight_metrics,
)

STEPS = 3


@functools.cache
def of_method(name: str) -> tuple[str, ...]:
    """What the method called `name` logs, without the layer."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, options = _model(nn.ReLU), network_options(name)
        optimizer = UnitAdam(model.parameters(), lr=1e-3, betas=options.betas or (0.9, 0.999))
        network = Network("net", hidden_layers(model), [optimizer])
        if options.rebuild:
            rebuild(model, [network], options)
            network.close()
            network = Network("net", hidden_layers(model), [optimizer])
        method = build_intervention(name, network, seed=0)
        attach(method, network)
        _train(model, optimizer)
        return _names(method.telemetry())


@functools.cache
def of_monitor() -> tuple[str, ...]:
    """What `agents.PlasticityMonitor` logs of every network or layer, whatever the method and the agent."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = _model(nn.Tanh)
        optimizer = UnitAdam(model.parameters(), lr=1e-3)
        network = Network("net", hidden_layers(model), [optimizer])
        step = StepMetrics()
        attach(step, network)
        step.arm()
        _train(model, optimizer)
        layer = network.layers[0]
        numbers = activation_metrics(layer, network.activations[layer.name])
        numbers |= weight_metrics(layer.weight, torch.zeros_like(layer.weight))
        numbers |= plasticity_probe(network.layers, torch.randn(32, 3), steps=1).metrics()
        numbers |= landscape_metrics(network, torch.randn(32, 3), rows=8)
        return _names(numbers | step.telemetry())


def every_name() -> set[str]:
    """All of them."""
    return set(of_monitor()).union(*(of_method(name) for name in METHODS))


def _model(activation: type[nn.Module]) -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 8), activation(), nn.Linear(8, 8), activation(), nn.Linear(8, 2))


def _train(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    for _ in range(STEPS):
        optimizer.zero_grad()
        model(torch.randn(32, 3)).square().mean().backward()
        optimizer.step()


def _names(numbers: dict[str, float]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(tag.rpartition("/")[2] for tag in numbers))
