"""One pass over all hidden layers of a network: what continual backprop learns of its units at each gradient step.

Equals `ContinualBackprop`'s own arithmetic but for rounding, for the utility of the published RL runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from plasticity.kernels import TYPES, add_columns, add_magnitudes, addressable, compiled, matrix, vector
from plasticity.layers import CONVOLUTIONS, HiddenLayer, weight_of

_LIKE = {kind: (np.zeros(1, own), np.zeros(1, np.int64)) for kind, own in TYPES.items()}
BUFFERS = ("age", "mean_activation", "utility", "budget")  # of what continual backprop remembers of a layer


class FusedContribution:
    """Ages, mean activations, contributions and budgets of the layers of one network, with plain linear readers."""

    def __init__(self) -> None:
        self._layers: tuple[HiddenLayer, ...] = ()
        self._held: list[Tensor] = []  # whose addresses the tables have
        self._addresses: list[int] = []
        self._fits = False

    def __call__(
        self,
        layers: Sequence[HiddenLayer],
        activations: Mapping[str, Tensor],
        states: Mapping[str, nn.Module],
        decay: float,
        maturity: int,
        rate: tuple[int, int],
    ) -> NDArray[np.int64] | None:
        """Count this minibatch in; how many units each layer is to replace, or None where nothing was done.

        activations: (batch, units) by layer; rate: numerator and denominator of the replacement rate.
        """
        held = [tensor for layer in layers for tensor in _tensors(layer, states[layer.name])]
        same = len(held) == len(self._held) and all(a is b for a, b in zip(held, self._held, strict=True))
        if not same or [tensor.data_ptr() for tensor in held] != self._addresses:
            self._look(layers, states, held)
        if not self._fits:
            return None
        kind = held[-1].dtype
        for row, layer in zip(self._table, layers, strict=True):
            h = activations[layer.name]
            if h.dim() != 2 or h.dtype != kind or not h.is_contiguous():
                return None
            row[0], row[1] = h.data_ptr(), len(h)
        counts = np.empty(len(layers), np.int64)
        _observe(self._table, self._readers, decay, maturity, *rate, counts, *_LIKE[kind])
        return counts

    def _look(self, layers: Sequence[HiddenLayer], states: Mapping[str, nn.Module], held: list[Tensor]) -> None:
        self._held, self._addresses = held, [tensor.data_ptr() for tensor in held]
        floats = [tensor for tensor in held if tensor.is_floating_point()]
        self._fits = bool(layers) and all(map(_is_plain, layers)) and addressable(*floats)
        if not self._fits:
            return
        rows: list[tuple[int, ...]] = []
        readers: list[tuple[int, ...]] = []
        for layer in layers:
            buffers = [states[layer.name]._buffers[name] for name in BUFFERS]
            addresses = [buffer.data_ptr() for buffer in buffers if buffer is not None]
            rows.append((0, 0, layer.units, *addresses, len(readers), len(layer.readers)))
            for reader in layer.readers:
                weight = weight_of(reader.linear)
                readers.append((weight.data_ptr(), *weight.shape, reader.first))
        self._table, self._readers = np.array(rows, np.int64), np.array(readers, np.int64)


def _tensors(layer: HiddenLayer, state: nn.Module) -> list[Tensor]:
    found: list[Any] = [state._buffers[name] for name in BUFFERS]
    return found + [reader.linear._parameters["weight"] for reader in layer.readers]


def _is_plain(layer: HiddenLayer) -> bool:
    """Single linear layers throughout: no channels, replicas, or several numbers for each unit."""
    linears = [layer.linear, *(reader.linear for reader in layer.readers)]
    return (
        layer.copies == 1
        and all(reader.span == 1 for reader in layer.readers)
        and all(weight_of(linear).dim() == 2 and not isinstance(linear, CONVOLUTIONS) for linear in linears)
    )


@compiled
def _observe(
    table: Any,
    readers: Any,
    decay: float,
    maturity: int,
    numerator: int,
    denominator: int,
    counts: Any,
    like: Any,
    whole: Any,
) -> None:
    for layer in range(len(table)):
        rows, units = table[layer, 1], table[layer, 2]
        h = matrix(table[layer, 0], rows, units, like)
        age, mean = vector(table[layer, 3], units, whole), vector(table[layer, 4], units, like)
        utility, budget = vector(table[layer, 5], units, like), vector(table[layer, 6], 1, whole)
        total, size, outgoing = np.zeros(units, like.dtype), np.zeros(units, like.dtype), np.zeros(units, like.dtype)
        add_columns(h, 0, total)
        add_magnitudes(h, 0, size)
        weights = 0
        for reader in range(table[layer, 7], table[layer, 7] + table[layer, 8]):
            outputs, first = readers[reader, 1], readers[reader, 3]
            weight = matrix(readers[reader, 0], outputs, readers[reader, 2], like)
            weights += outputs
            add_magnitudes(weight, first, outgoing)
        mature = 0
        for i in range(units):
            age[i] += 1
            mature += age[i] > maturity
            mean[i] += (total[i] / rows - mean[i]) * (1 - decay)
            utility[i] += (outgoing[i] / weights * (size[i] / rows) - utility[i]) * (1 - decay)
        budget[0] += mature * numerator
        counts[layer] = budget[0] // denominator
        budget[0] -= counts[layer] * denominator
