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
from plasticity.native import NATIVE, NO_WORK, Work, addressable, table, together
from plasticity.network import Network
from plasticity.optim import UnitAdam

_trained = attrgetter("requires_grad")
BUFFERS = ("age", "mean_activation", "utility", "budget")  # of what continual backprop remembers of a layer


class FusedContribution:
    """Ages, mean activations, contributions and budgets of the layers of one network, with plain linear readers.

    decay, maturity: of continual backprop. rate: numerator and denominator of its replacement rate.
    """

    def __init__(self, decay: float, maturity: int, rate: tuple[int, int]) -> None:
        self._settings, self._numbers = (decay, maturity, rate), (float(decay), maturity, *rate)
        self._network: Network | None = None
        self._seen = 0  # layers of it
        self._steady: object | None = None  # in which all was seen to lie where it lay
        self._places: list[tuple[dict[str, Any], str]] = []  # of weights, and of what is remembered of units
        self._tensors: list[Any] = []
        self._weights: list[Any] = []
        self._addresses: list[Any] = []
        self._layers: list[HiddenLayer] = []
        self._tasks: list[_Task] = []
        self._asked: Network | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy finds out anew where its tensors lie."""
        return type(self), self._settings

    def prepare(self, network: Network) -> None:
        """Before a step: have it tell what it comes by anyway."""
        if network is not self._asked:
            self._asked = network
            for layer in network.layers:
                for reader in layer.readers:
                    _column_sums(network, weight_of(reader.linear))

    def __call__(self, network: Network, states: Mapping[str, nn.Module]) -> dict[HiddenLayer, int] | None:
        """Count this minibatch in; the layers that are to replace units and how many, or None: nothing was done."""
        if network.steady is None or network.steady is not self._steady:
            if not self._still(network):
                self._look(network, states)
            self._steady = network.steady
        if not self._tasks:
            return None
        activations = network.activations
        for task in self._tasks:
            if not task.read(activations[task.name], network.sums(task.name)):
                return None
        together(NO_WORK, self._work, alone=False)
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

    def _look(self, network: Network, states: Mapping[str, nn.Module]) -> None:
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
            self._tasks.append(_Task(layer, network, states[layer.name], self._numbers, into))
        self._work = Work(*((task.native, task.table) for task in self._tasks))


class _Task:
    """What the loop reads of one layer; holds all it points to."""

    def __init__(self, layer: HiddenLayer, network: Network, state: nn.Module, numbers: tuple[Any, ...], into: int):
        self.name, self._kind, self._network = layer.name, layer.weight.dtype, network
        self._own, self._room = (torch.empty(2, layer.units, dtype=self._kind) for _ in range(2))
        self._weights = [weight_of(reader.linear) for reader in layer.readers]
        weights = zip(self._weights, layer.readers, strict=True)
        self._readers = table([n for w, reader in weights for n in (w.data_ptr(), *w.shape, reader.first, 0)])
        self._sizes: list[Tensor | None] = [None for _ in self._weights]
        buffers: list[Any] = [state._buffers[name] for name in BUFFERS]
        ends = self._own.data_ptr(), self._room.data_ptr()
        self.table = table(
            [
                *(0, 0, layer.units, *(buffer.data_ptr() for buffer in buffers)),
                *(self._readers.ctypes.data, len(self._weights), *ends, *numbers, into),
            ]
        )
        self.native = NATIVE[self._kind].contribution
        self._sums: Tensor | None = None

    def read(self, activations: Tensor, sums: Tensor | None) -> bool:
        """What is counted in, (batch, units), and its sums, (2, units), if they are known; whether that can be done."""
        for place, weight in enumerate(self._weights):
            if (sizes := _column_sums(self._network, weight)) is not self._sizes[place]:
                self._sizes[place] = sizes
                self._readers[5 * place + 4] = 0 if sizes is None else sizes.data_ptr()
        if sums is not None and sums is self._sums:  # of the same pass
            return True
        if sums is not None:
            self._sums, self.table[0], self.table[9] = sums, 0, sums.data_ptr()
        elif activations.dim() == 2 and activations.dtype == self._kind and activations.is_contiguous():
            self._sums, self.table[0], self.table[9] = None, activations.data_ptr(), self._own.data_ptr()
        else:
            return False
        self.table[1] = len(activations)
        return True


def _column_sums(network: Network, weight: nn.Parameter) -> Tensor | None:
    optimizer = network.optimizers[0]  # whose steps train it
    return optimizer.column_sums(weight) if type(optimizer) is UnitAdam else None


def _is_plain(layer: HiddenLayer) -> bool:
    """Single linear layers throughout: no channels, replicas, or several numbers for each unit."""
    linears = [layer.linear, *(reader.linear for reader in layer.readers)]
    return (
        layer.copies == 1
        and all(reader.span == 1 for reader in layer.readers)
        and all(weight_of(linear).dim() == 2 and not isinstance(linear, CONVOLUTIONS) for linear in linears)
    )
