"""Parseval regularisation: keep the incoming weights of hidden units orthogonal and of one length."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from plasticity.intervention import Intervention
from plasticity.network import Network
from plasticity.settings import check, setting

_TUNED_WIDTH = 64  # of the networks that the published strength was chosen for


@dataclass(frozen=True)
class ParsevalConfig:
    """Settings of `Parseval`.

    strength: lambda for layers of 64 outputs, the width it was tuned for; wider ones get lambda (64 / width)^2, as in
        the paper's code. The paper uses 1e-3 (1e-4 for some environments).
    scale: s, the squared length that each unit's incoming weights are kept at: 2 is the square of ReLU's gain.
    """

    strength: float = setting(1e-3, within="[0, inf)")
    scale: float = setting(2.0, within="(0, inf)")

    def __post_init__(self) -> None:
        check(self)

    def build(self, network: Network, seed: int) -> Parseval:
        """The intervention for one network."""
        return Parseval(**asdict(self))


class Parseval(nn.Module, Intervention):
    """Adds the gradient of lambda ||W W^T - s I||_F^2 for each hidden layer's W, at every gradient step.

    W is (units, fan_in), kernels of a convolution flat; output layers, biases and log standard deviations are left
    alone. The gradient is 4 lambda (W W^T - s I) W. A layer with more units than inputs cannot have W W^T = s I, and
    needs no special case: W (W^T W - s I) is the same gradient, so there its columns become orthogonal.

    Source: Chung, Cherif, Meger & Precup, "Parseval regularization for continual reinforcement learning", NeurIPS
    2024, arXiv 2412.07224, and their code (wechu/parseval_reg), for the factor (64 / width)^2 too. Their variants with
    diagonal layers, learned input scales and groups of units are not here.
    """

    def __init__(self, strength: float = 1e-3, *, scale: float = 2.0):
        super().__init__()
        self.config = ParsevalConfig(strength, scale)

    def before_step(self, network: Network) -> None:
        if not self.config.strength:
            return
        for layer in network.layers:
            if layer.weight.grad is not None:
                width = layer.units * layer.copies
                gradient = _gradient(layer.incoming(), self.config.scale)
                strength = self.config.strength * (_TUNED_WIDTH / width) ** 2
                layer.weight.grad.add_(gradient.view(layer.weight.shape), alpha=strength)


def _gradient(matrix: Tensor, scale: float) -> Tensor:
    """4 (W W^T - s I) W by way of the smaller product, (*replicas, units, fan_in)."""
    units, inputs = matrix.shape[-2:]
    identity = scale * torch.eye(min(units, inputs), dtype=matrix.dtype, device=matrix.device)
    if units <= inputs:
        return 4 * (matrix @ matrix.mT - identity) @ matrix
    return 4 * matrix @ (matrix.mT @ matrix - identity)
