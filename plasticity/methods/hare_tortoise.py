"""Hare and Tortoise: a fast network that is put back, now and then, to a slow average of itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from plasticity.buffers import Buffers, HostCounts
from plasticity.intervention import Intervention
from plasticity.network import Network
from plasticity.settings import check, setting


@dataclass(frozen=True)
class HareTortoiseConfig:
    """Settings of `HareTortoise`.

    momentum: what remains of the slow copy in a gradient step; the published supervised runs use 0.999.
    period: gradient steps from one return to the slow copy to the next. The published supervised runs return every 10
        epochs, some 2000 steps of CIFAR-10.
    """

    momentum: float = setting(0.999, within="[0, 1)")
    period: int = setting(2000, within="[1, inf)")

    def __post_init__(self) -> None:
        check(self)

    def build(self, network: Network, seed: int) -> HareTortoise:
        """The intervention for one network; the slow copy starts as what the network is now."""
        return HareTortoise(network, **asdict(self))


class HareTortoise(HostCounts, Intervention):
    """slow <- momentum * slow + (1 - momentum) * fast after every gradient step; every `period` steps fast <- slow.

    The fast network (hare) is the one that trains and acts; the slow one (tortoise) is a buffer with a storage of its
    own. Weights, biases and normalisation gains take part, log standard deviations do not, and optimizer states stay as
    they are. Where another method replaces units or resets layers, the next return undoes what the slow copy has
    not followed; it would tear a network with `plasticity_injection` from its correction.

    Source: Lee et al., "Slow and steady wins the race: maintaining plasticity with Hare and Tortoise networks", ICML
    2024, arXiv 2406.02596, and their code, whose return makes the two networks share one storage, so that the slow copy
    takes the next fast step in full; which also returns after the very first epoch; and which averages running
    statistics of normalisations too.
    """

    made_of_first_weights = True

    steps: Tensor

    def __init__(self, network: Network, momentum: float = 0.999, *, period: int = 2000):
        super().__init__()
        self.config = HareTortoiseConfig(momentum, period)
        self.slow = Buffers(_parameters(network))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def after_step(self, network: Network) -> None:
        self.steps += 1
        returns = int(self.steps) % self.config.period == 0
        for slow, fast in zip(self.slow, _parameters(network), strict=True):
            slow.lerp_(fast, 1 - self.config.momentum)
            if returns:
                fast.copy_(slow)

    def telemetry(self) -> dict[str, float]:
        """`returns`: how often the network has been put back."""
        return {"returns": float(int(self.steps) // self.config.period)}


def _parameters(network: Network) -> Iterator[Tensor]:
    yield from network.parameters()
    for layer in network.layers:
        if layer.norm is not None:
            yield from layer.norm.parameters(recurse=False)
