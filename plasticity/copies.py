"""Copies of a network to experiment with: modules of their own that share nothing with the original."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from plasticity.layers import HiddenLayer
from plasticity.network import Network


def copied(layers: Sequence[HiddenLayer]) -> nn.Sequential:
    """Hidden layers as one module without hooks: inputs (rows, ...) -> what the last layer puts out.

    Its parts are `linear0`, `norm0` (if there is one), `activation0`, `linear1`, ...: a state_dict fits every copy of
    layers of the same shapes.
    """
    stack = nn.Sequential()
    for i, layer in enumerate(layers):
        if isinstance(layer.linear, nn.Linear):
            stack.add_module(f"flat{i}", nn.Flatten())
        stack.add_module(f"linear{i}", layer.linear)
        if layer.norm is not None:
            stack.add_module(f"norm{i}", layer.norm)
        stack.add_module(f"activation{i}", layer.activation)
    return without_hooks(stack)


M = TypeVar("M", bound=nn.Module)


class HeadsCopy(nn.Module):
    """A copy of hidden layers and of the readers of the last one: inputs (rows, ...) -> what each reader puts out."""

    def __init__(self, layers: Sequence[HiddenLayer]):
        super().__init__()
        self.body = copied(layers)
        self.heads = nn.ModuleList(without_hooks(reader.linear) for reader in layers[-1].readers)

    def forward(self, inputs: Tensor) -> list[Tensor]:
        h = self.body(inputs)
        return [head(h.flatten(1) if isinstance(head, nn.Linear) else h) for head in self.heads]


class OutputCopy(nn.Module):
    """A copy of a network with its readers: inputs (rows, ...) -> all their outputs side by side, (rows, outputs).

    Raises `ValueError` where a reader reads other things besides the network's units: critics behind an extractor.
    """

    def __init__(self, network: Network):
        super().__init__()
        network.heads()  # raises
        self.network = HeadsCopy(network.layers)

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.cat([output.flatten(1) for output in self.network(inputs)], 1)


def without_hooks(module: M) -> M:
    """A deep copy that calls none of the original's hooks: recorders would take what it does for training."""
    hooks = [value for part in module.modules() for name, value in vars(part).items() if name.endswith("_hooks")]
    return copy.deepcopy(module, {id(registered): type(registered)() for registered in hooks})
