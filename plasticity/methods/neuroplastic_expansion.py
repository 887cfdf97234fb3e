"""Neuroplastic expansion: a network that starts small and grows where the loss asks for it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from plasticity.buffers import HostCounts
from plasticity.intervention import Intervention
from plasticity.layers import HiddenLayer
from plasticity.metrics import dormancy_score
from plasticity.network import Network
from plasticity.settings import SettingsError, check, from_mapping, setting
from plasticity.sparsity import DISTRIBUTIONS, SparseWeights, densities, largest, per_network


@dataclass(frozen=True)
class NeuroplasticExpansionConfig:
    """Settings of `NeuroplasticExpansion`; by default both sparsities, `prune` and `period` are the authors' code's.

    initial_sparsity: share of the hidden layers' weights that are missing at first.
    sparsity: share that is missing in the end.
    prune: of the weights grown at one time, at most this share makes up for pruned ones (omega).
    threshold: a unit whose dormancy score, as in `redo`, is at most this is dormant; 0 means silent in every row.
    period: gradient steps from one growth to the next.
    end: gradient steps until the network is full-grown and its masks stay; the paper grows until the end of training.
    distribution: of the missing weights among layers; `erk` keeps small layers denser, or `uniform`.
    """

    initial_sparsity: float = setting(0.8, within="[0, 1)")
    sparsity: float = setting(0.25, within="[0, 1)")
    prune: float = setting(0.4, within="[0, 1)")
    threshold: float = setting(0.0, within="[0, inf)")
    period: int = setting(100, within="[1, inf)")
    end: int = setting(100_000, within="[1, inf)")
    distribution: str = setting("erk", choices=DISTRIBUTIONS)

    def __post_init__(self) -> None:
        check(self)
        if self.sparsity > self.initial_sparsity:
            raise SettingsError(
                [f"sparsity must be at most initial_sparsity, {self.initial_sparsity}, got {self.sparsity}"]
            )

    def build(self, network: Network, seed: int) -> NeuroplasticExpansion:
        """The intervention for one network, whose hidden layers are sparse from now on."""
        return NeuroplasticExpansion(network, **asdict(self))


class NeuroplasticExpansion(HostCounts, Intervention):
    """Every `period` gradient steps each hidden layer loses weights of dormant units and grows more of them elsewhere.

    At first, when this is made, only the largest weights of each layer exist. Growth slows down as a half cosine: at
    gradient step t the share of weights that exist has come u + sin(pi u) / pi of its way from first to last,
    u = t / `end`. Each time, first the smallest incoming weights of dormant units vanish, as many as `prune` allows;
    then those with the largest |gradient| among the missing ones appear, at 0.

    Liu et al., "Neuroplastic expansion in deep reinforcement learning", ICLR 2025, arXiv 2410.07994: elastic topology
    generation and dormant neuron pruning. Its third part, consolidation by experience review (old transitions are
    replayed more often while units fall dormant), is the replay buffer's business, which no method sees here, and is
    left out. In the authors' code growth, at the rate alpha / 2 (1 + cos(pi t / T)), stops at the last sparsity; here
    alpha is what reaches it at `end`. There weights go on being exchanged once a network is full-grown, and a step that
    grows takes no gradient step; here the optimizer's step follows, with the same gradients.
    """

    made_of_first_weights = True

    steps: Tensor

    def __init__(self, network: Network, **settings: Any):
        super().__init__()
        self.config = from_mapping(NeuroplasticExpansionConfig, settings)
        self.weights = SparseWeights(network)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        shares = densities(network.layers, self.config.initial_sparsity, self.config.distribution)
        self.weights.start(network, [_largest(layer, s) for layer, s in zip(network.layers, shares, strict=True)])

    def before_step(self, network: Network) -> None:
        step, end = int(self.steps) + 1, self.config.end
        if step <= end and (step % self.config.period == 0 or step == end):
            progress = step / end + math.sin(math.pi * step / end) / math.pi
            first, last = (
                densities(network.layers, sparsity, self.config.distribution)
                for sparsity in (self.config.initial_sparsity, self.config.sparsity)
            )
            shares = [a + progress * (b - a) for a, b in zip(first, last, strict=True)]
            for (layer, mask), share in zip(self.weights.of(network), shares, strict=True):
                if layer.weight.grad is not None:
                    self._grow(network, layer, mask, layer.weight.grad, share)
        self.weights.mask_gradients(network)

    def _grow(self, network: Network, layer: HiddenLayer, mask: Tensor, gradient: Tensor, share: float) -> None:
        size, wanted, there = (per_network(layer, t) for t in (layer.weight.abs(), gradient.abs(), mask))
        gain = (round(share * there.shape[-1]) - there.sum(-1)).clamp_min(0)
        allowed = (self.config.prune / (1 - self.config.prune) * gain).long()
        pruned = largest(-size, allowed, there & per_network(layer, self._dormant(network, layer)))
        kept = there & ~pruned
        grown = largest(wanted, gain + pruned.sum(-1), ~kept)
        self.weights.change(network, layer, (kept | grown).view_as(mask))

    def _dormant(self, network: Network, layer: HiddenLayer) -> Tensor:
        """True for the incoming weights of dormant units, in the weight's shape."""
        dormant = torch.zeros(layer.unit_shape, dtype=torch.bool, device=layer.weight.device)
        if layer.name in network.activations:
            dormant = dormancy_score(layer.rows(network.activations[layer.name])) <= self.config.threshold
        return dormant.reshape(*dormant.shape, *(1,) * (layer.weight.dim() - dormant.dim())).expand_as(layer.weight)

    def after_step(self, network: Network) -> None:
        self.steps += 1
        self.weights.mask_weights(network)

    def telemetry(self) -> dict[str, float]:
        """For each layer: its `sparsity`, the share of its weights that are missing."""
        return self.weights.telemetry()


def _largest(layer: HiddenLayer, share: float) -> Tensor:
    size = per_network(layer, layer.weight.detach().abs())
    return largest(size, round(share * size.shape[-1]), torch.ones_like(size, dtype=torch.bool)).view_as(layer.weight)
