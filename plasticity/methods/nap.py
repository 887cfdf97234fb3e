"""Normalize-and-Project: normalise every layer and keep the norms of its weights, so that step sizes stay."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from plasticity.architecture import NetworkOptions, require
from plasticity.buffers import Buffers
from plasticity.intervention import Intervention
from plasticity.layers import matrix_of
from plasticity.network import Network
from plasticity.settings import check, setting


@dataclass(frozen=True)
class NaPConfig:
    """Settings of `NaP`.

    heads: keep the norms of the network's other weights, its outputs among them, as well. No normalisation makes up for
        those: an output layer of fixed norm cannot learn outputs of another size, and SB3 starts PPO's action layer at
        a hundredth of the usual size.
    """

    heads: bool = setting(False)

    def __post_init__(self) -> None:
        check(self)

    def options(self) -> NetworkOptions:
        """What it asks of a network before training."""
        return NetworkOptions(layer_norm=True)

    def build(self, network: Network, seed: int) -> NaP:
        """The intervention for one network; its norms are what they are now."""
        require(network, self.options(), "nap")
        return NaP(network, **asdict(self))


class NaP(nn.Module, Intervention):
    """After every gradient step W <- W |W_0| / |W|, Frobenius norms, for each normalised hidden layer.

    A layer's bias takes the same factor: norm(W x + b) does not see it then (but for the normalisation's eps), so that
    a projection changes how long later steps are and not what the network says. |W_0| are the norms of `network` when
    this was made; they are saved and loaded with it. Weights that are all 0, now or at first, are left alone. The gains
    and offsets of the normalisations are left to the optimizer, and target networks to Polyak averaging.

    Source: Lyle et al., "Normalization and effective learning rates in reinforcement learning", NeurIPS 2024, arXiv
    2407.01800. The reimplementation in Plasticine (arXiv 2504.17490) projects all weights, the last layer's too
    (`heads`), and no biases; another rescales gain and offset together to their first norm, which leaves the function
    alone only where activations are positively homogeneous, as ReLU's are and tanh's are not.
    """

    made_of_first_weights = True

    def __init__(self, network: Network, *, heads: bool = False):
        super().__init__()
        self.config = NaPConfig(heads)
        self.norms = Buffers(_norm(linear) for linear in self._projected(network))

    def after_step(self, network: Network) -> None:
        hidden = {layer.linear for layer in network.layers}
        for linear, initial in zip(self._projected(network), self.norms, strict=True):
            norm = _norm(linear)
            factor = (initial / norm).where((norm > 0) & (initial > 0), 1.0)
            matrix_of(linear).mul_(factor[..., None, None])
            if linear in hidden and isinstance(bias := getattr(linear, "bias", None), Tensor):
                bias.mul_(factor[..., None])

    def _projected(self, network: Network) -> list[nn.Module]:
        """The layers whose weights are rescaled."""
        hidden = [layer.linear for layer in network.layers]
        return list(dict.fromkeys([*hidden, *network.linears])) if self.config.heads else hidden


def _norm(linear: nn.Module) -> Tensor:
    """The Frobenius norm of a layer's weight, (*replicas,)."""
    norm: Tensor = torch.linalg.matrix_norm(matrix_of(linear))
    return norm
