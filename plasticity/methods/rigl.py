"""RigL: a sparse network that gives up its smallest weights for those the loss asks for."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from plasticity.buffers import HostCounts
from plasticity.intervention import Intervention, Randomness
from plasticity.layers import HiddenLayer
from plasticity.network import Network
from plasticity.settings import check, from_mapping, setting
from plasticity.sparsity import DISTRIBUTIONS, SparseWeights, densities, largest, per_network


@dataclass(frozen=True)
class RigLConfig:
    """Settings of `RigL`.

    sparsity: share of the hidden layers' weights that are missing, from the start to the end.
    drop_fraction: share of the existing weights that are exchanged at first (the paper's alpha); it falls to 0.
    period: gradient steps from one exchange to the next (Delta T).
    end: gradient steps after which nothing is exchanged (T_end); the paper's is three quarters of training.
    distribution: of the missing weights among layers; `erk` keeps small layers denser, or `uniform`.
    """

    sparsity: float = setting(0.9, within="[0, 1)")
    drop_fraction: float = setting(0.3, within="[0, 1]")
    period: int = setting(100, within="[1, inf)")
    end: int = setting(75_000, within="[1, inf)")
    distribution: str = setting("erk", choices=DISTRIBUTIONS)

    def __post_init__(self) -> None:
        check(self)

    def build(self, network: Network, seed: int) -> RigL:
        """The intervention for one network, whose hidden layers are sparse from now on."""
        return RigL(network, seed=seed, **asdict(self))


class RigL(HostCounts, Intervention):
    """Every `period` gradient steps each hidden layer drops its smallest weights and grows as many elsewhere.

    Which weights exist at first is drawn at random, when this is made, and the others are 0 from then on. At gradient
    step t < `end` a layer with n weights drops its k = floor(drop_fraction / 2 (1 + cos(pi t / end)) n) smallest, then
    grows those k with the largest |gradient| that do not exist. Weights that are dropped and grown at once stay as they
    are; others that are grown start at 0.

    Evci et al., "Rigging the lottery: making all tickets winners", ICML 2020, arXiv 1911.11134, Algorithm 1. There a
    step that exchanges weights takes no gradient step; here the optimizer's step follows, with the same gradients.
    """

    made_of_first_weights = True

    steps: Tensor

    def __init__(self, network: Network, *, seed: int = 0, **settings: Any):
        super().__init__()
        self.config = from_mapping(RigLConfig, settings)
        self.random = Randomness(seed, network.name, "rigl")
        self.weights = SparseWeights(network)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        shares = densities(network.layers, self.config.sparsity, self.config.distribution)
        self.weights.start(
            network, [self._first(layer, share) for layer, share in zip(network.layers, shares, strict=True)]
        )

    def _first(self, layer: HiddenLayer, share: float) -> Tensor:
        chance = per_network(layer, self.random.unit(*layer.weight.shape))
        kept = largest(chance, round(share * chance.shape[-1]), torch.ones_like(chance, dtype=torch.bool))
        return kept.view(layer.weight.shape).to(layer.weight.device)

    def before_step(self, network: Network) -> None:
        step = int(self.steps) + 1
        if step < self.config.end and step % self.config.period == 0:
            fraction = self.config.drop_fraction / 2 * (1 + math.cos(math.pi * step / self.config.end))
            for layer, mask in self.weights.of(network):
                if layer.weight.grad is not None:
                    self._exchange(network, layer, mask, layer.weight.grad, fraction)
        self.weights.mask_gradients(network)

    def _exchange(self, network: Network, layer: HiddenLayer, mask: Tensor, gradient: Tensor, fraction: float) -> None:
        size, wanted, there = (per_network(layer, t) for t in (layer.weight.abs(), gradient.abs(), mask))
        total = there.sum(-1)
        count = (fraction * total).long()
        kept = largest(size, total - count, there)
        grown = largest(wanted, count, ~kept)
        self.weights.change(network, layer, (kept | grown).view_as(mask))

    def after_step(self, network: Network) -> None:
        self.steps += 1
        self.weights.mask_weights(network)

    def telemetry(self) -> dict[str, float]:
        """For each layer: its `sparsity`, the share of its weights that are missing."""
        return self.weights.telemetry()
