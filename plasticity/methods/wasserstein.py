"""Wasserstein regularisation: pull the distribution of each layer's weights towards its first one."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from plasticity.buffers import Buffers
from plasticity.intervention import Intervention
from plasticity.network import Network
from plasticity.settings import check, setting


@dataclass(frozen=True)
class WassersteinConfig:
    """Settings of `Wasserstein`.

    strength: lambda in the penalty lambda / 2 * sum (sort(theta) - sort(theta_0))^2. The default is that of `l2_init`,
        so that the two compare; no published value was found.
    biases: pull biases too.
    """

    strength: float = setting(2e-2, within="[0, inf)")
    biases: bool = setting(True)

    def __post_init__(self) -> None:
        check(self)

    def build(self, network: Network, seed: int) -> Wasserstein:
        """The intervention for one network; theta_0 is what the network has now."""
        return Wasserstein(network, **asdict(self))


class Wasserstein(nn.Module, Intervention):
    """Adds strength * (theta - the first weight of the same rank) to the gradients, at every gradient step.

    That is the gradient of strength / 2 * sum (sort(theta) - sort(theta_0))^2, the squared 2-Wasserstein distance
    between the values that a layer has and those it started with, times their number. Unlike with `L2Init`, weights may
    change places: a layer whose weights are only permuted pays nothing. Weights and biases of a layer are sorted
    apart, kernels of a convolution flat, and each of several networks side by side by itself.

    theta_0 are the weights of `network` when this was made, so make it before the first step; they are saved and
    loaded with it, sorted. Normalisation gains and free log standard deviations are left alone.

    Source: Lewandowski, Tanaka, Schuurmans & Machado, "Directions of curvature as an explanation for loss of
    plasticity", arXiv 2312.00246. The code of Chung et al. (arXiv 2412.07224) divides each layer's sum by its number
    of weights; here, as in `L2Init`, a weight's pull does not depend on the size of its layer.
    """

    made_of_first_weights = True

    def __init__(self, network: Network, strength: float = 2e-2, *, biases: bool = True):
        super().__init__()
        self.config = WassersteinConfig(strength, biases)
        self.sorted = Buffers(_values(p, network).sort(-1).values for p in network.parameters(biases=biases))

    def before_step(self, network: Network) -> None:
        if not self.config.strength:
            return
        for parameter, ordered in zip(network.parameters(biases=self.config.biases), self.sorted, strict=True):
            if parameter.grad is not None:
                values = _values(parameter, network)
                order = _as_integers(values).argsort(dim=-1, stable=True)
                goal = values.new_empty(values.shape).scatter_(-1, order, ordered)
                parameter.grad.add_((values - goal).view(parameter.shape), alpha=self.config.strength)


def _values(parameter: Tensor, network: Network) -> Tensor:
    """(*replicas, number of values)."""
    return parameter.flatten(len(network.replicas))


def _as_integers(values: Tensor) -> Tensor:
    """Integers in the same order (-0 just before 0): torch sorts long rows of those by digits, ten times faster."""
    bits = values.view({2: torch.int16, 4: torch.int32, 8: torch.int64}[values.element_size()])
    sign = bits >> (8 * values.element_size() - 1)  # -1 or 0: of negative numbers, the larger the bits the smaller
    return bits ^ (sign & torch.iinfo(bits.dtype).max)
