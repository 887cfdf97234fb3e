"""Activations that put out two numbers for each unit, side by side: unit i's are outputs 2i and 2i + 1.

The papers put all first halves before all second ones: the same functions, the next layer's columns in another order.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class CReLU(nn.Module):
    """[relu(z), relu(-z)]: (batch, units, ...) -> (batch, 2 * units, ...); one of the two always passes gradient.

    Shang et al., ICML 2016, arXiv 1603.05201; against loss of plasticity: Abbas et al., CoLLAs 2023, arXiv 2303.07507.
    """

    copies = 2

    def forward(self, z: Tensor) -> Tensor:
        return torch.stack([F.relu(z), F.relu(-z)], 2).flatten(1, 2)


class Fourier(nn.Module):
    """[sin(z), cos(z)]: (batch, units, ...) -> (batch, 2 * units, ...); where one is flat the other is steep.

    Lewandowski et al., "Plastic learning with deep Fourier features", ICLR 2025, arXiv 2410.20634.
    """

    copies = 2

    def forward(self, z: Tensor) -> Tensor:
        return torch.stack([torch.sin(z), torch.cos(z)], 2).flatten(1, 2)
