"""GraMa: recycle units that get hardly any gradient."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from plasticity.initialisation import INITIALISATIONS
from plasticity.intervention import Every, Intervention
from plasticity.layers import HiddenLayer
from plasticity.network import Network
from plasticity.recycling import Recycler
from plasticity.settings import check, setting


@dataclass(frozen=True)
class GraMaConfig:
    """Settings of `GraMa`.

    threshold: a unit whose score is at most this is inactive (tau); the paper uses 0.01, and 0 with tanh and sigmoid.
    period: gradient steps from one recycling to the next. A fresh unit's outgoing weights are 0, and so is its gradient
        until they have grown: much shorter periods recycle the same units again and again.
    init: the distribution of fresh incoming weights; `network` is the scale the layer started with.
    """

    threshold: float = setting(0.01, within="[0, inf)")
    period: int = setting(1000, within="[1, inf)")
    init: str = setting("network", choices=INITIALISATIONS)

    def __post_init__(self) -> None:
        check(self)

    def build(self, network: Network, seed: int) -> Every:
        """The intervention for one network."""
        return Every(self.period, GraMa(network, threshold=self.threshold, init=self.init, seed=seed))


class GraMa(Recycler, Intervention):
    """Replace every unit that gets hardly any gradient, each time it acts: `Every(1000, GraMa(network))`.

    Score of a unit: mean |dL / dz| over the minibatch, z the input of its activation function (behind a LayerNorm),
    divided by the layer's mean of it; at most `threshold` means inactive. All else is as in `ReDo`. Because it looks at
    gradients it works with LayerNorm and with activations that are never 0; a dead ReLU unit has score 0 here too.

    Liu et al., "Measure gradients, not activations! Enhancing neuronal activity in deep reinforcement learning",
    NeurIPS 2025, arXiv 2505.24061, Section 4.2, equation 2 (metric: GraMa, resets by it: ReGraMa). The paper says the
    gradient of a unit and shows that a dead ReLU unit has none, which holds for z and not for what the unit puts out.
    Code by its authors (`GradientReDo`, published with arXiv 2410.07994) takes the gradients of the incoming weights
    instead, which backpropagation leaves behind averaged over the minibatch; through a LayerNorm those of a dead unit
    are not 0. It adds 1e-9 to the layer's mean; here the loss may be in any unit.

    The gradients are those of the network's own loss as backpropagation brings them, before any clipping or penalty. A
    layer whose units' outputs get no gradient at all (PPO, every ratio clipped; a dead layer behind it) is left alone.
    """

    def __init__(
        self,
        network: Network,
        *,
        threshold: float = 0.01,
        init: str = "network",
        seed: int = 0,
    ):
        super().__init__(network.layers, init=init, seed=seed, stream=network.name, method="grama")
        self.threshold = GraMaConfig(threshold=threshold, init=init).threshold
        network.record_gradients()

    def after_step(self, network: Network) -> None:
        self.recycle(
            network,
            {
                layer.name: gradient_score(layer, network.input_gradients[layer.name]) <= self.threshold
                for layer in network.trained_layers
                if layer.name in network.input_gradients and network.output_gradients[layer.name].any()
            },
        )


def gradient_score(layer: HiddenLayer, gradient: Tensor) -> Tensor:
    """mean |dL / dz| of each unit over the layer's mean of it, (*replicas, units); all 0 where no gradient arrives.

    gradient: dL / dz, shaped like the input of the layer's activation function.
    """
    rows = layer.features(gradient) if layer.copies > 1 else layer.rows(gradient)  # z has no copies
    size = rows.abs().mean(0)
    return size / size.mean(-1, keepdim=True).clamp_min(torch.finfo(size.dtype).tiny)
