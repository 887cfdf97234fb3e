"""Gradual magnitude pruning: more and more of the smallest weights vanish for good."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from plasticity.buffers import HostCounts
from plasticity.intervention import Intervention
from plasticity.network import Network
from plasticity.settings import SettingsError, check, from_mapping, setting
from plasticity.sparsity import DISTRIBUTIONS, SparseWeights, densities, largest, per_network


@dataclass(frozen=True)
class MagnitudePruningConfig:
    """Settings of `MagnitudePruning`.

    sparsity: share of the hidden layers' weights that are missing in the end; the paper's is 0.95.
    start: gradient steps before the first weight vanishes; published: after 20 % of training.
    end: gradient steps after which no more vanish; published: after 80 % of training.
    period: gradient steps from one pruning to the next.
    distribution: of the missing weights among layers; `uniform`, or `erk`, which keeps small layers denser.
    """

    sparsity: float = setting(0.95, within="[0, 1)")
    start: int = setting(20_000, within="[0, inf)")
    end: int = setting(80_000, within="[1, inf)")
    period: int = setting(1000, within="[1, inf)")
    distribution: str = setting("uniform", choices=DISTRIBUTIONS)

    def __post_init__(self) -> None:
        check(self)
        if self.end <= self.start:
            raise SettingsError([f"end must be greater than start, {self.start}, got {self.end}"])

    def build(self, network: Network, seed: int) -> MagnitudePruning:
        """The intervention for one network."""
        return MagnitudePruning(network, **asdict(self))


class MagnitudePruning(HostCounts, Intervention):
    """The smallest weights of each hidden layer vanish for good, a few every `period` gradient steps.

    At gradient step t each network misses s_t = s (1 - (1 - (t - start) / (end - start))^3) of its hidden weights, 0
    before `start` and s after `end`: Zhu & Gupta, "To prune, or not to prune", arXiv 1710.01878, equation 1, with 0 as
    the initial sparsity. Weights vanish after the optimizer's step, every `period` steps from `start` on, and at `end`.

    Obando-Ceron, Courville & Castro, "In value-based deep reinforcement learning, a pruned network is a good network",
    ICML 2024, arXiv 2402.12479: the larger the network, the more it helps; at usual widths it may well not.
    """

    steps: Tensor

    def __init__(self, network: Network, **settings: Any):
        super().__init__()
        self.config = from_mapping(MagnitudePruningConfig, settings)
        self.weights = SparseWeights(network)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def before_step(self, network: Network) -> None:
        self.weights.mask_gradients(network)

    def after_step(self, network: Network) -> None:
        self.steps += 1
        step, start, end = int(self.steps), self.config.start, self.config.end
        if start < step <= end and ((step - start) % self.config.period == 0 or step == end):
            self._prune(network, self.config.sparsity * (1 - (1 - (step - start) / (end - start)) ** 3))
        self.weights.mask_weights(network)

    def _prune(self, network: Network, sparsity: float) -> None:
        shares = densities(network.layers, sparsity, self.config.distribution)
        for (layer, mask), share in zip(self.weights.of(network), shares, strict=True):
            size, left = per_network(layer, layer.weight.abs()), per_network(layer, mask)
            count = left.sum(-1).clamp_max(round(share * size.shape[-1]))
            self.weights.change(network, layer, largest(size, count, left).view_as(mask))

    def telemetry(self) -> dict[str, float]:
        """For each layer: its `sparsity`, the share of its weights that are missing."""
        return self.weights.telemetry()
