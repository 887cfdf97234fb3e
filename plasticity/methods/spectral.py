"""Spectral regularisation: keep the largest singular value of each layer near 1."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from plasticity.buffers import Buffers
from plasticity.intervention import Intervention
from plasticity.layers import matrix_of, weight_of
from plasticity.network import Network
from plasticity.settings import check, setting


@dataclass(frozen=True)
class SpectralConfig:
    """Settings of `Spectral`.

    strength: lambda in the penalty lambda * sum ((sigma^k - 1)^2 + ||b||^(2k)) over layers, of weights with largest
        singular value sigma and biases b.
    exponent: k.
    biases: pull biases to 0 too.
    """

    strength: float = setting(1e-4, within="[0, inf)")
    exponent: int = setting(2, within="[1, inf)")
    biases: bool = setting(True)

    def __post_init__(self) -> None:
        check(self)

    def build(self, network: Network, seed: int) -> Spectral:
        """The intervention for one network."""
        return Spectral(network, **asdict(self))


class Spectral(nn.Module, Intervention):
    """Adds the gradient of strength * sum ((sigma^k - 1)^2 + ||b||^(2k)) over all layers, at every gradient step.

    sigma is the largest singular value of a layer's weight, kernels of a convolution flat as (outputs, fan_in). Its
    singular vectors u and v follow the weight by one power iteration a step; d sigma / d W = u v^T. They start exact
    (a full decomposition when this is made) instead of random, so that the first steps do not take a small estimate
    for a small sigma; u is saved and loaded with the method. Normalisation gains are left alone (the paper pulls each
    to 1), and so are free log standard deviations.

    Source: Lewandowski et al., "Learning continually by spectral regularization", ICLR 2025, arXiv 2406.06811. The term
    of the biases, k = 2 and the default strength are those of a reproduction by others; the paper was not at hand.
    """

    made_of_first_weights = True

    def __init__(self, network: Network, strength: float = 1e-4, *, exponent: int = 2, biases: bool = True):
        super().__init__()
        self.config = SpectralConfig(strength, exponent, biases)
        self.left = Buffers(_first_left(matrix_of(linear)) for linear in network.linears)

    def before_step(self, network: Network) -> None:
        strength, k = self.config.strength, self.config.exponent
        if not strength:
            return
        for linear, left in zip(network.linears, self.left, strict=True):
            matrix = matrix_of(linear)
            sigma, right = _iterate(matrix, left)
            slope = 2 * k * (sigma**k - 1) * sigma ** (k - 1)
            _add(weight_of(linear), strength * slope * left.unsqueeze(-1) * right.unsqueeze(-2))
            bias = getattr(linear, "bias", None)
            if self.config.biases and isinstance(bias, nn.Parameter):
                norm = bias.norm(dim=-1, keepdim=True)
                _add(bias, strength * 2 * k * norm ** (2 * k - 2) * bias)


def _first_left(matrix: Tensor) -> Tensor:
    """The left singular vector of the largest singular value, (*replicas, outputs)."""
    vectors: Tensor = torch.linalg.svd(matrix.detach().double(), full_matrices=False).U
    return vectors[..., 0].to(matrix)


def _iterate(matrix: Tensor, left: Tensor) -> tuple[Tensor, Tensor]:
    """One power iteration, which moves `left` in place; sigma (*replicas, 1, 1) and the right vector."""
    right = nn.functional.normalize((left.unsqueeze(-2) @ matrix).squeeze(-2), dim=-1)
    image = (matrix @ right.unsqueeze(-1)).squeeze(-1)
    sigma = image.norm(dim=-1, keepdim=True)
    # a weight that is all zero for a while must not leave a zero vector behind, which no iteration could turn again
    left.copy_(torch.where(sigma > 0, image / sigma, left))
    return sigma.unsqueeze(-1), right


def _add(parameter: nn.Parameter, gradient: Tensor) -> None:
    if parameter.grad is not None:
        parameter.grad.add_(gradient.view(parameter.shape))
