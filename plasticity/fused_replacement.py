"""Replacement of units in one pass: what `plasticity.replacement` does, for single linear layers on the CPU.

Equals it but for the rounding of sums.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from plasticity.layers import HiddenLayer, Reader, weight_of
from plasticity.native import NATIVE, addressable, table
from plasticity.network import Network
from plasticity.optim import UnitAdam

Zeros = tuple[int, int, int, int, int]  # as native_units.h reads them


class Picked(NamedTuple):
    """Units of a layer that are to be replaced.

    units: their numbers, (count,). means: what they put out on average, (count,), or None where that is not to move.
    remembered: tensors (units,) that are to be zero at these.
    """

    layer: HiddenLayer
    units: NDArray[np.int64]
    means: NDArray[np.float64] | None
    remembered: Sequence[Tensor]


def is_fit(layer: HiddenLayer, network: Network) -> bool:
    """Whether `replace_in_one_pass` can replace units of a layer that `FusedContribution` takes."""
    hidden, linears = network.activations[layer.name], [layer.linear, *(reader.linear for reader in layer.readers)]
    biases = [bias for linear in linears if (bias := linear._parameters.get("bias")) is not None]
    return (
        layer.norm is None
        and not layer.noise_readers
        and not (network.sync_twins and layer.name in network.twins)
        and hidden.dim() == 2
        and addressable(layer.weight, hidden, *biases)
        and all(type(optimizer) is UnitAdam for optimizer in network.optimizers)
    )


def replace_in_one_pass(
    network: Network, picked: Sequence[Picked], fresh: Callable[[HiddenLayer, int], Tensor], reset_optimizer: bool
) -> list[float]:
    """`replace_units` where all layers are fit; the mean absolute change of each layer's readers' outputs."""
    kind = picked[0].layer.weight.dtype
    optimizers: Any = network.optimizers if reset_optimizer else ()
    changes, longest = np.zeros(len(picked)), 0
    held: list[Any] = []  # what the tables point to
    layers: list[int] = []
    for place, (layer, units, means, remembered) in enumerate(picked):
        count, hidden = len(units), network.activations[layer.name]
        rows = fresh(layer, count).to(layer.weight)
        moved = torch.zeros(count, dtype=kind) if means is None else torch.from_numpy(means).to(kind)
        readers = table([n for reader in layer.readers for n in _reader(layer, reader, means is not None)])
        zeros = table([n for entry in _zeros(layer, remembered, optimizers) for n in entry])
        held += [units, rows, moved, readers, zeros]
        layers += [units.ctypes.data, count, rows.data_ptr(), layer.weight.data_ptr(), rows.shape[1]]
        layers += [moved.data_ptr(), hidden.data_ptr(), len(hidden), layer.units]
        layers += [readers.ctypes.data, len(layer.readers), zeros.ctypes.data, len(zeros) // 5]
        layers += [changes.ctypes.data + 8 * place]
        longest = max(longest, count * len(hidden))
    every, scratch = table(layers), torch.empty(longest, dtype=kind)
    task = table([every.ctypes.data, len(picked), scratch.data_ptr()])
    NATIVE[kind].replace(task.ctypes.data)
    return [float(change) for change in changes]


def _reader(layer: HiddenLayer, reader: Reader, moves: bool) -> tuple[int, ...]:
    """Weight, outputs, inputs and first column; and the bias that takes the means, or 0."""
    weight, linear = weight_of(reader.linear), reader.linear
    takes = moves and layer.takes_mean(reader)
    bias: Any = linear.bias
    return weight.data_ptr(), *weight.shape, reader.first, bias.data_ptr() if takes else 0


def _zeros(layer: HiddenLayer, remembered: Sequence[Tensor], optimizers: Sequence[UnitAdam]) -> Iterator[Zeros]:
    """All numbers of units that are to be zero afterwards."""
    yield from map(_rows, remembered)
    if layer.bias is not None:
        yield _rows(layer.bias)
    for parameter in (layer.weight, layer.bias):
        for own in _states(parameter, optimizers):
            yield from (_rows(tensor) for name, tensor in own.items() if name not in ("step", "column_step"))
    for reader in layer.readers:
        weight, first = weight_of(reader.linear), reader.first
        yield _columns(weight, first)
        for own in _states(weight, optimizers):
            yield _rows(own["column_step"], first)
            yield from (_columns(tensor, first) for tensor in own.values() if tensor.dim() == 2)


def _states(parameter: Any, optimizers: Sequence[UnitAdam]) -> Iterator[dict[str, Tensor]]:
    for optimizer in optimizers if parameter is not None else ():
        if state := optimizer.state_by_unit(parameter):
            yield state


def _rows(tensor: Tensor, first: int = 0) -> Zeros:
    """A unit for each row, the first of them at row `first`."""
    size, apart = tensor.element_size(), tensor.stride(0)
    return tensor.data_ptr() + first * apart * size, apart * size, apart, size, size


def _columns(tensor: Tensor, first: int) -> Zeros:
    """A unit for each column, the first of them at column `first`."""
    size, (rows, columns) = tensor.element_size(), tensor.shape
    return tensor.data_ptr() + first * size, size, rows, columns * size, size
