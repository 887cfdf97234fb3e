"""One pass over all hidden layers of a network: what continual backprop learns of its units at each gradient step.

Equals `ContinualBackprop`'s own arithmetic but for rounding, for the utility of the published RL runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from plasticity.layers import CONVOLUTIONS, HiddenLayer, weight_of
from plasticity.native import NATIVE, addressable

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

        The result is written over by the next call.

        activations: (batch, units) by layer; rate: numerator and denominator of the replacement rate.
        """
        held = [tensor for layer in layers for tensor in _tensors(layer, states[layer.name])]
        same = len(held) == len(self._held) and all(a is b for a, b in zip(held, self._held, strict=True))
        if not same or [tensor.data_ptr() for tensor in held] != self._addresses:
            self._look(layers, states, held)
        if not self._fits:
            return None
        kind = held[-1].dtype
        seen = [activations[layer.name] for layer in layers]
        if any(h.dim() != 2 or h.dtype != kind or not h.is_contiguous() for h in seen):
            return None
        self._table[:, :2] = [(h.data_ptr(), len(h)) for h in seen]
        NATIVE[kind].contribution(*self._arguments, decay, maturity, *rate, *self._results)
        return self._counts

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
        self._counts, self._scratch = (
            np.empty(len(layers), np.int64),
            np.empty(3 * max(layer.units for layer in layers)),
        )
        self._arguments = self._table.ctypes.data, len(layers), self._readers.ctypes.data
        self._results = self._counts.ctypes.data, self._scratch.ctypes.data


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
