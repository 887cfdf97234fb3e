"""ReDo: recycle dormant neurons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from plasticity.initialisation import INITIALISATIONS, uniform_bound
from plasticity.intervention import Every, Intervention, Randomness
from plasticity.layers import HiddenLayer
from plasticity.metrics import dormancy_score
from plasticity.network import Network
from plasticity.replacement import replace_units
from plasticity.settings import check, setting


@dataclass(frozen=True)
class ReDoConfig:
    """Settings of `ReDo`.

    threshold: a unit whose score is at most this is dormant (tau); the paper uses 0.025 for its main results, 0.1 too.
    period: gradient steps from one recycling to the next.
    init: the distribution of fresh incoming weights; `network` is the scale the layer started with.
    """

    threshold: float = setting(0.025, within="[0, inf)")
    period: int = setting(1000, within="[1, inf)")
    init: str = setting("network", choices=INITIALISATIONS)

    def __post_init__(self) -> None:
        check(self)

    def build(self, network: Network, seed: int) -> Every:
        """The intervention for one network."""
        redo = ReDo(network.layers, threshold=self.threshold, init=self.init, seed=seed, stream=network.name)
        return Every(self.period, redo)


class ReDo(nn.Module, Intervention):
    """Replace every dormant unit, each time it acts: `Every(1000, ReDo(network.layers))`.

    Sokar et al., "The dormant neuron phenomenon in deep reinforcement learning", ICML 2023, arXiv 2302.12902,
    Algorithm 1. Score of a unit: mean |h| over the minibatch, divided by the layer's mean of it; at most `threshold`
    means dormant. Dormant units get fresh incoming weights, bias 0 and outgoing weights 0; their optimizer state,
    step counts included, starts afresh. In a layer where everything is 0 all units are dormant.
    """

    def __init__(
        self,
        layers: Sequence[HiddenLayer],
        *,
        threshold: float = 0.025,
        init: str = "network",
        seed: int = 0,
        stream: str = "redo",
    ):
        super().__init__()
        self.threshold = ReDoConfig(threshold=threshold, init=init).threshold
        self.random = Randomness(seed, stream, "redo")
        self.layers = nn.ModuleDict({layer.name: _Counts(layer, init) for layer in layers})

    def after_step(self, network: Network) -> None:
        picked: dict[str, Tensor] = {}
        for layer in network.layers:
            if layer.name in network.activations:
                mask = dormancy_score(layer.rows(network.activations[layer.name])) <= self.threshold
                if mask.any():
                    picked[layer.name] = mask
        if picked:
            replace_units(network, picked, self._fresh)
        for name, mask in picked.items():
            self.layers[name].replaced += mask.sum()  # type: ignore[operator]

    def _fresh(self, layer: HiddenLayer, count: int) -> Tensor:
        bound = float(self.layers[layer.name].bound)  # type: ignore[arg-type]
        return self.random.uniform(count, layer.incoming().shape[-1], bound=bound)

    def telemetry(self) -> dict[str, float]:
        """For each layer: units `replaced` so far."""
        return {f"{name}/replaced": float(state.replaced) for name, state in self.layers.items()}  # type: ignore[arg-type]


class _Counts(nn.Module):
    def __init__(self, layer: HiddenLayer, init: str):
        super().__init__()
        bound = uniform_bound(layer.linear, init, layer.activation)
        self.register_buffer("bound", torch.tensor(bound, dtype=torch.float64))
        self.register_buffer("replaced", torch.zeros((), dtype=torch.int64, device=layer.weight.device))
