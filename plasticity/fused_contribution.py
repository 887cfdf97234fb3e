"""One pass over all hidden layers of a network: what continual backprop learns of its units at each gradient step.

Equals `ContinualBackprop`'s own arithmetic but for rounding, for the utility of the published RL runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter, is_
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from plasticity.layers import CONVOLUTIONS, HiddenLayer, weight_of
from plasticity.native import NATIVE, Work, addressable, table, together
from plasticity.network import Network

_trained = attrgetter("requires_grad")
MANY = 500_000  # weights for which a second thread is asked
BUFFERS = ("age", "mean_activation", "utility", "budget")  # of what continual backprop remembers of a layer


class FusedContribution:
    """Ages, mean activations, contributions and budgets of the layers of one network, with plain linear readers."""

    def __init__(self) -> None:
        self._network: Network | None = None
        self._seen = 0  # layers of it
        self._places: list[tuple[dict[str, Any], str]] = []  # of weights, and of what is remembered of units
        self._tensors: list[Any] = []
        self._weights: list[Any] = []
        self._addresses: list[Any] = []
        self._layers: list[HiddenLayer] = []
        self._tasks: list[_Task] = []
        self._works: tuple[Work, ...] = ()

    def __call__(
        self,
        network: Network,
        states: Mapping[str, nn.Module],
        decay: float,
        maturity: int,
        rate: tuple[int, int],
    ) -> dict[HiddenLayer, int] | None:
        """Count this minibatch in; the layers that are to replace units, and how many, or None where nothing was done.

        rate: numerator and denominator of the replacement rate.
        """
        if not self._still(network):
            self._look(network, states, (decay, maturity, *rate))
        if not self._tasks:
            return None
        activations = network.activations
        for task in self._tasks:
            if not task.read(activations[task.name], network.sums(task.name)):
                return None
        together(*self._works, alone=self._alone)
        counts = self._counts.tolist()
        return {layer: n for layer, n in zip(self._layers, counts, strict=True) if n} if any(counts) else {}

    def _still(self, network: Network) -> bool:
        """Whether weights and states lie where they lay, and the same of them are trained."""
        return (
            network is self._network
            and len(network.activations) == self._seen
            and all(map(is_, [table[name] for table, name in self._places], self._tensors))
            and [*map(Tensor.data_ptr, self._tensors), *map(_trained, self._weights)] == self._addresses
        )

    def _look(self, network: Network, states: Mapping[str, nn.Module], numbers: tuple[Any, ...]) -> None:
        seen = [layer for layer in network.layers if layer.name in network.activations]
        linears = [*(layer.linear for layer in seen), *(reader.linear for layer in seen for reader in layer.readers)]
        weights = [(linear._parameters, "weight") for linear in linears]
        buffers = [(states[layer.name]._buffers, name) for layer in seen for name in BUFFERS]
        self._network, self._seen, self._places = network, len(network.activations), [*weights, *buffers]
        self._tensors = [table[name] for table, name in self._places]
        self._weights = self._tensors[: len(weights)]
        self._addresses = [*map(Tensor.data_ptr, self._tensors), *map(_trained, self._weights)]
        self._layers, self._tasks = network.trained_layers, []
        floats = [tensor for tensor in self._tensors if tensor.is_floating_point()]
        if not self._layers or not all(map(_is_plain, self._layers)) or not addressable(*floats):
            return
        network.wants_sums = True
        self._counts = np.zeros(len(self._layers), np.int64)
        for place, layer in enumerate(self._layers):
            into = self._counts.ctypes.data + 8 * place
            self._tasks.append(_Task(layer, states[layer.name], numbers, into))
        halves = self._tasks[::2], self._tasks[1::2]
        self._works = tuple(Work(*((task.native, task.table) for task in half)) for half in halves)
        self._alone = True if sum(weight.numel() for weight in self._weights) < MANY else None


class _Task:
    """What the loop reads of one layer; holds all it points to."""

    def __init__(self, layer: HiddenLayer, state: nn.Module, numbers: tuple[Any, ...], into: int):
        self.name, self._kind = layer.name, layer.weight.dtype
        self._own, self._room = (torch.empty(2, layer.units, dtype=self._kind) for _ in range(2))
        weights = [(weight_of(reader.linear), reader.first) for reader in layer.readers]
        self._readers = table([n for w, first in weights for n in (w.data_ptr(), *w.shape, first)])
        buffers: list[Any] = [state._buffers[name] for name in BUFFERS]
        ends = self._own.data_ptr(), self._room.data_ptr()
        self.table = table(
            [
                *(0, 0, layer.units, *(buffer.data_ptr() for buffer in buffers)),
                *(self._readers.ctypes.data, len(weights), *ends, float(numbers[0]), *numbers[1:], into),
            ]
        )
        self.native = NATIVE[self._kind].contribution
        self._sums: Tensor | None = None

    def read(self, activations: Tensor, sums: Tensor | None) -> bool:
        """What is counted in, (batch, units), and its sums, (2, units), if they are known; whether that can be done."""
        if sums is not None:
            if sums is not self._sums:
                self._sums, self.table[0], self.table[9] = sums, 0, sums.data_ptr()
        elif activations.dim() == 2 and activations.dtype == self._kind and activations.is_contiguous():
            self._sums, self.table[0], self.table[9] = None, activations.data_ptr(), self._own.data_ptr()
        else:
            return False
        self.table[1] = len(activations)
        return True


def _is_plain(layer: HiddenLayer) -> bool:
    """Single linear layers throughout: no channels, replicas, or several numbers for each unit."""
    linears = [layer.linear, *(reader.linear for reader in layer.readers)]
    return (
        layer.copies == 1
        and all(reader.span == 1 for reader in layer.readers)
        and all(weight_of(linear).dim() == 2 and not isinstance(linear, CONVOLUTIONS) for linear in linears)
    )
