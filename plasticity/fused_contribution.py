"""One pass over all hidden layers of a network: what continual backprop learns of its units at each gradient step.

Equals `ContinualBackprop`'s own arithmetic but for rounding, for the utility of the published RL runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from plasticity.fused_adam import ColumnSums
from plasticity.held import Held
from plasticity.layers import CONVOLUTIONS, HiddenLayer, weight_of
from plasticity.native import NATIVE, Tasks, addressable, table
from plasticity.network import Network
from plasticity.optim import UnitAdam

_trained = attrgetter("requires_grad")
NOTHING: dict[HiddenLayer, int] = {}
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
        self._held = Held([])  # weights, and what is remembered of units
        self._weights: list[nn.Parameter] = []
        self._trained: list[bool] = []  # which of them are
        self._layers: list[HiddenLayer] = []
        self._tasks: list[_Task] = []
        self._columns: list[ColumnSums] = []  # of outgoing weights, where their optimizer tells them
        self._sums: Mapping[str, Tensor] | None = None  # which all tasks read, along with those of all columns

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy finds out anew where its tensors lie."""
        return type(self), self._settings

    def __call__(self, network: Network, states: Mapping[str, nn.Module]) -> dict[HiddenLayer, int] | None:
        """Count this minibatch in; the layers that are to replace units and how many, or None: nothing was done."""
        sums, steady = network.latest_sums, network.steady
        if steady is None or steady is not self._steady:
            if not self._still(network):
                self._look(network, states)
            self._steady = steady
        is_read = sums is not None and sums is self._sums
        for columns in self._columns:
            if columns.version != columns.of._version:
                is_read = False
        if not is_read and not self._read(network):
            return None
        self._count(self._address)
        return self.counts()

    def counts(self) -> dict[HiddenLayer, int]:
        """The layers that are to replace units since the latest minibatch, and how many."""
        if not self._total[0]:
            return NOTHING
        return {layer: n for layer, n in zip(self._layers, self._counts.tolist(), strict=True) if n}

    def unattended(self, network: Network) -> Tasks | None:
        """What counts in a minibatch whose sums lie where the latest's do; None where that has to be looked at."""
        is_steady = network.steady is not None and network.steady is self._steady
        is_read = self._sums is not None and self._sums is network.latest_sums
        return ((self._count, self._task),) if is_steady and is_read else None

    def _read(self, network: Network) -> bool:
        """Have the tasks read what there is to be counted in; whether there are any, and they can."""
        sums, known = network.latest_sums or {}, {id(columns.of): columns.known() for columns in self._columns}
        self._sums = None if None in known.values() else network.latest_sums
        activations = network.activations
        return bool(self._tasks) and all(t.read(activations[t.name], sums.get(t.name), known) for t in self._tasks)

    def _still(self, network: Network) -> bool:
        """Whether weights and states lie where they lay, and the same of them are trained."""
        return (
            network is self._network
            and len(network.activations) == self._seen
            and self._held.stay()
            and [*map(_trained, self._weights)] == self._trained
        )

    def _look(self, network: Network, states: Mapping[str, nn.Module]) -> None:
        seen = [layer for layer in network.layers if layer.name in network.activations]
        linears = [*(layer.linear for layer in seen), *(reader.linear for layer in seen for reader in layer.readers)]
        weights = [(linear._parameters, "weight") for linear in linears]
        buffers = [(states[layer.name]._buffers, name) for layer in seen for name in BUFFERS]
        self._network, self._seen, self._held = network, len(network.activations), Held([*weights, *buffers])
        self._weights = [weight_of(linear) for linear in linears]
        self._trained = [*map(_trained, self._weights)]
        self._layers, self._tasks = network.trained_layers, []
        floats = [tensor for tensor in self._held.tensors if tensor.is_floating_point()]
        if not self._layers or not all(map(_is_plain, self._layers)) or not addressable(*floats):
            return
        network.wants_sums = True
        self._columns = _column_sums(network, self._layers)
        self._counts = np.zeros(len(self._layers), np.int64)
        self._total = np.zeros(1, np.int64).data
        for place, layer in enumerate(self._layers):
            into = self._counts.ctypes.data + 8 * place
            self._tasks.append(_Task(layer, states[layer.name], self._numbers, into))
        addresses = [task.table.ctypes.data for task in self._tasks]
        self._task = table([np.asarray(self._total).ctypes.data, len(addresses), *addresses])
        self._address: int = self._task.ctypes.data
        self._count = NATIVE[self._layers[0].weight.dtype].contributions


class _Task:
    """What the loop reads of one layer; holds all it points to."""

    def __init__(self, layer: HiddenLayer, state: nn.Module, numbers: tuple[Any, ...], into: int):
        self.name, self._kind = layer.name, layer.weight.dtype
        self._own, self._room = (torch.empty(2, layer.units, dtype=self._kind) for _ in range(2))
        self._weights = [weight_of(reader.linear) for reader in layer.readers]
        weights = zip(self._weights, layer.readers, strict=True)
        self._readers = table([n for w, reader in weights for n in (w.data_ptr(), *w.shape, reader.first, 0)])
        self.held: tuple[Tensor | None, ...] = ()
        buffers: list[Any] = [state._buffers[name] for name in BUFFERS]
        ends = self._own.data_ptr(), self._room.data_ptr()
        self.table = table(
            [
                *(0, 0, layer.units, *(buffer.data_ptr() for buffer in buffers)),
                *(self._readers.ctypes.data, len(self._weights), *ends, *numbers, into),
            ]
        )

    def read(self, activations: Tensor, sums: Tensor | None, columns: Mapping[int, Tensor | None]) -> bool:
        """What is counted in, (batch, units), and where they are known its sums, (2, units), and those of the columns
        of outgoing weights; whether that can be done."""
        known = [columns.get(id(weight)) for weight in self._weights]
        self._readers[4::5] = [0 if own is None else own.data_ptr() for own in known]
        self.held = (sums, *known)
        if sums is not None:
            self.table[0], self.table[9] = 0, sums.data_ptr()
        elif activations.dim() == 2 and activations.dtype == self._kind and activations.is_contiguous():
            self.table[0], self.table[9] = activations.data_ptr(), self._own.data_ptr()
        else:
            return False
        self.table[1] = len(activations)
        return True


def _column_sums(network: Network, layers: Sequence[HiddenLayer]) -> list[ColumnSums]:
    """Of all weights that read these layers, where the optimizer that trains them tells them."""
    optimizer, weights = network.optimizers[0], [weight_of(r.linear) for layer in layers for r in layer.readers]
    return [optimizer.column_sums(weight) for weight in weights] if type(optimizer) is UnitAdam else []


def _is_plain(layer: HiddenLayer) -> bool:
    """Single linear layers throughout: no channels, replicas, or several numbers for each unit."""
    linears = [layer.linear, *(reader.linear for reader in layer.readers)]
    return (
        layer.copies == 1
        and all(reader.span == 1 for reader in layer.readers)
        and all(weight_of(linear).dim() == 2 and not isinstance(linear, CONVOLUTIONS) for linear in linears)
    )
