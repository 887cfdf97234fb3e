"""Methods for learners side by side, such that no seed's result depends on which others run beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from experiments.seedwise import EXPERIMENT
from plasticity import HiddenLayer, Intervention, MethodConfig, Network, Randomness, Reader, attach

WINDOW = 256  # examples: what a method that judges units by a minibatch is shown, where learning is one at a time


def attach_method(config: MethodConfig, network: Network, seeds: Sequence[int]) -> None:
    """Attach a method to the learners' optimizer: at once for all seeds, or seed by seed if it acts now and then.

    At once it must treat units alike whatever seed they belong to, and pick equally many in each, as continual
    backprop does. A method with a `period` is built for each seed by itself, so it may do whatever it likes.
    """
    if hasattr(config, "period"):
        method: Any = EachSeed(config, network, seeds)
    else:
        method = config.build(network, seed=0)
        for module in list(method.modules()):
            if isinstance(getattr(module, "random", None), Randomness):
                module.random = SeedwiseRandomness(seeds, type(module).__name__)
    attach(method, network)


class EachSeed(nn.Module, Intervention):
    """A method of its own for each seed, on a network that is a view of that seed's weights, every `period` examples.

    It sees the activations of the latest `WINDOW` examples as one minibatch.
    """

    def __init__(self, config: Any, network: Network, seeds: Sequence[int]):
        super().__init__()
        self.period, self.window = config.period, min(WINDOW, config.period)
        self.networks = [_one_of(network, place) for place in range(len(seeds))]
        every_time = replace(config, period=1)
        self.methods = nn.ModuleList(
            every_time.build(one, seed) for one, seed in zip(self.networks, seeds, strict=True)
        )
        self.until = self.period
        self.recent: list[dict[str, Tensor]] = []

    def after_step(self, network: Network) -> None:
        self.until -= 1
        if self.until < self.window:
            self.recent.append(dict(network.activations))
        if self.until:
            return
        for place, (one, method) in enumerate(zip(self.networks, self.methods, strict=True)):
            for layer in one.layers:
                one.activations[layer.name] = torch.stack([seen[layer.name][place] for seen in self.recent])
            method.after_step(one)  # type: ignore[operator]
        self.until = self.period
        self.recent.clear()


class _Slice(nn.Module):
    """One seed's part of layers side by side: weight (outputs, inputs), bias (outputs,), the same memory."""

    def __init__(self, linear: Any, place: int):
        super().__init__()
        self.weight = nn.Parameter(linear.weight[place], requires_grad=False)
        self.bias = nn.Parameter(linear.bias[place], requires_grad=False)
        for parameter in (self.weight, self.bias):  # which says that they are trained, though not by autograd
            parameter.grad = torch.zeros_like(parameter)


def _one_of(network: Network, place: int) -> Network:
    slices = {linear: _Slice(linear, place) for linear in network.linears}
    layers = [
        HiddenLayer(
            layer.name,
            slices[layer.linear],
            type(layer.activation)(),
            tuple(Reader(slices[reader.linear], reader.first, reader.span) for reader in layer.readers),
        )
        for layer in network.layers
    ]
    return Network(EXPERIMENT, layers, network.optimizers)


class SeedwiseRandomness(Randomness):
    """A method's random stream with one generator a seed: each fills its equal share of the first dimension.

    The seeds' learners are of one age, so continual backprop replaces in all of them at the same steps and equally many
    units; what one seed gets is then the same whether it runs alone or among others.
    """

    def __init__(self, seeds: Sequence[int], name: str):
        super().__init__(0, name)
        self.streams = nn.ModuleList(Randomness(seed, EXPERIMENT, name) for seed in seeds)

    def uniform(self, *shape: int, bound: float = 1.0) -> Tensor:
        return self._split(shape, lambda stream, share: stream.uniform(*share, bound=bound))

    def unit(self, *shape: int) -> Tensor:
        return self._split(shape, lambda stream, share: stream.unit(*share))

    def normal(self, *shape: int, std: float = 1.0) -> Tensor:
        return self._split(shape, lambda stream, share: stream.normal(*share, std=std))

    def _split(self, shape: Sequence[int], draw: Callable[[Randomness, tuple[int, ...]], Tensor]) -> Tensor:
        each, rest = divmod(shape[0], len(self.streams))
        if rest:
            raise ValueError(f"{shape[0]} rows cannot be shared equally among {len(self.streams)} seeds")
        return torch.cat([draw(stream, (each, *shape[1:])) for stream in self.streams])  # type: ignore[arg-type]
