"""ReDo: recycle dormant neurons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from plasticity.initialisation import INITIALISATIONS
from plasticity.intervention import Every, Intervention
from plasticity.layers import HiddenLayer
from plasticity.metrics import dormancy_score
from plasticity.network import Network
from plasticity.recycling import Recycler
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


class ReDo(Recycler, Intervention):
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
        super().__init__(layers, init=init, seed=seed, stream=stream, method="redo")
        self.threshold = ReDoConfig(threshold=threshold, init=init).threshold

    def after_step(self, network: Network) -> None:
        self.recycle(
            network,
            {
                layer.name: dormancy_score(layer.rows(network.activations[layer.name])) <= self.threshold
                for layer in network.trained_layers
            },
        )
