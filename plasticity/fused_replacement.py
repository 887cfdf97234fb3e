"""Replacement of units in one pass: the picks of continual backprop and what `plasticity.replacement` does with them.

For single linear layers on the CPU; equals both but for rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from operator import is_
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import increment_version

from plasticity.layers import HiddenLayer, Reader, weight_of
from plasticity.native import NATIVE, addressable, table
from plasticity.network import Network
from plasticity.optim import UnitAdam

Zeros = tuple[int, int, int, int, int]  # as native_units.h reads them
COUNT, DRAWS, FRESH, HIDDEN, BATCH, OWN = range(6)  # of a layer there, what is another each time, and the rest


class FusedReplacement:
    """Replaces the least useful units of one network; remembers where a layer's tensors lie while they stay there.

    decay, maturity: of continual backprop. transfer: mean activations move into the readers' biases. reset: the
    optimizers' states of replaced units start afresh.
    """

    def __init__(self, decay: float, maturity: int, transfer: bool, reset: bool):
        self._settings = (decay, maturity, transfer, reset)
        self._numbers, self._transfer, self._reset = (float(decay), maturity), transfer, reset
        self._plans: dict[HiddenLayer, _Plan] = {}
        self._scratch = torch.empty(0, dtype=torch.float64)

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy finds out anew where its tensors lie."""
        return type(self), self._settings

    def takes(self, network: Network, states: Mapping[str, nn.Module], layers: Sequence[HiddenLayer]) -> bool:
        """Whether units of these layers, which `FusedContribution` has taken, can be replaced here."""
        return all(self._is_fit(network, states[layer.name], layer) for layer in layers)

    def _is_fit(self, network: Network, state: nn.Module, layer: HiddenLayer) -> bool:
        plan = self._plans.get(layer)
        if plan is None or not plan.stays(network.steady):
            optimizers: Any = network.optimizers if self._reset else ()
            if not _is_plain(layer, network, state):
                return False
            tensors = _tensors(layer, state, optimizers)
            if not all(tensor.is_contiguous() for tensor in tensors):
                return False
            if plan is None or not plan.is_of(tensors):
                plan = self._plans[layer] = _Plan(layer, state, optimizers, tensors, self._numbers, self._transfer)
            plan.steady = network.steady
        return plan.reads(network.activations[layer.name])

    def __call__(
        self,
        network: Network,
        counts: Mapping[HiddenLayer, int],
        draws: Sequence[Tensor],
        fresh: Callable[[HiddenLayer, int], Tensor],
    ) -> None:
        """Replace so many units of each layer, all of which `takes` has just been asked for.

        draws: for each layer float32 (units,), which decide between units of equal utility. fresh: as in
        `replace_units`. Also counts what is replaced, and notes the mean absolute change of the readers' outputs.
        """
        kind = next(iter(counts)).weight.dtype
        rows = [fresh(layer, count).to(kind) for layer, count in counts.items()]
        plans, longest = [self._plans[layer] for layer in counts], 0
        for (layer, count), plan, own, new in zip(counts.items(), plans, draws, rows, strict=True):
            hidden = network.activations[layer.name]
            plan.table[:OWN] = count, own.data_ptr(), new.data_ptr(), hidden.data_ptr(), len(hidden)
            longest = max(longest, count * len(hidden), layer.units)
        if len(self._scratch) < longest:
            self._scratch = torch.empty(longest, dtype=torch.float64)
        task = table([self._scratch.data_ptr(), len(plans), *(plan.address for plan in plans)])
        NATIVE[kind].replace(task.ctypes.data)
        increment_version([weight for plan in plans for weight in plan.weights])


class _Plan:
    """What the kernel reads of a layer; holds all it points to.

    weights: all that change. address: of the table. steady: see `Network.steady`, when last looked at.
    """

    steady: object | None = None

    def __init__(
        self,
        layer: HiddenLayer,
        state: nn.Module,
        optimizers: Sequence[UnitAdam],
        tensors: Sequence[Tensor],
        numbers: tuple[float, int],
        transfer: bool,
    ):
        self._kind = layer.weight.dtype
        self._tensors, self._addresses = tensors, [*map(Tensor.data_ptr, tensors)]
        self.weights = [layer.weight, *(weight_of(reader.linear) for reader in layer.readers)]
        self._states = [(o.state, p, o.state.get(p)) for o in optimizers for p in _with_states(layer)]
        self._readers = table([n for reader in layer.readers for n in _reader(layer, reader, transfer)])
        self._zeros = table([n for entry in _zeros(layer, state, optimizers) for n in entry])
        self._picked = torch.empty(layer.units, dtype=torch.int64)
        self._means = torch.zeros(layer.units, dtype=layer.weight.dtype)
        told = (state._buffers[name] for name in ("utility", "mean_activation", "age", "replaced", "output_change"))
        self.table = table(
            [
                *(0, 0, 0, 0, 0, layer.units, layer.weight.data_ptr(), layer.weight.shape[1]),
                *(tensor.data_ptr() for tensor in told if tensor is not None),
                *(self._picked.data_ptr(), self._means.data_ptr(), self._readers.ctypes.data, len(layer.readers)),
                *(self._zeros.ctypes.data, len(self._zeros) // 5, *numbers, int(transfer)),
            ]
        )
        self.address: int = self.table.ctypes.data

    def reads(self, hidden: Tensor) -> bool:
        """Whether this is what a layer of this kind puts out."""
        fits = hidden.dim() == 2 and hidden.dtype == self._kind and hidden.device.type == "cpu"
        return fits and hidden.is_contiguous()

    def stays(self, stretch: object | None) -> bool:
        """Whether this can be taken as it is within a stretch, in which states may begin anew all the same."""
        return (
            stretch is not None
            and stretch is self.steady
            and all(every.get(parameter) is own for every, parameter, own in self._states)
        )

    def is_of(self, tensors: Sequence[Tensor]) -> bool:
        """Whether these are the tensors, and lie where they lay."""
        return (
            len(tensors) == len(self._tensors)
            and all(map(is_, tensors, self._tensors))
            and [*map(Tensor.data_ptr, tensors)] == self._addresses
        )


def _is_plain(layer: HiddenLayer, network: Network, state: nn.Module) -> bool:
    linears = [layer.linear, *(reader.linear for reader in layer.readers)]
    biases = [bias for linear in linears if (bias := linear._parameters.get("bias")) is not None]
    return (
        layer.norm is None
        and not layer.noise_readers
        and not (network.sync_twins and layer.name in network.twins)
        and addressable(layer.weight, *biases)
        and state.get_buffer("output_change").dtype == torch.float64
        and all(type(optimizer) is UnitAdam for optimizer in network.optimizers)
    )


def _tensors(layer: HiddenLayer, state: nn.Module, optimizers: Sequence[UnitAdam]) -> list[Tensor]:
    """All that belongs to a layer."""
    own = _with_states(layer)
    states = (state for parameter in own for state in _states(parameter, optimizers))
    biases = (reader.linear._parameters.get("bias") for reader in layer.readers)
    every: Iterator[Any] = chain(own, biases, state._buffers.values(), *map(dict.values, states))
    return [tensor for tensor in every if tensor is not None]


def _with_states(layer: HiddenLayer) -> list[nn.Parameter]:
    """Those of a layer whose optimizers' states are reset."""
    weights = [weight_of(reader.linear) for reader in layer.readers]
    return [layer.weight, *weights] if layer.bias is None else [layer.weight, layer.bias, *weights]


def _reader(layer: HiddenLayer, reader: Reader, moves: bool) -> tuple[int, ...]:
    """Weight, outputs, inputs and first column; and the bias that takes the means, or 0."""
    weight, linear = weight_of(reader.linear), reader.linear
    takes = moves and layer.takes_mean(reader)
    bias: Any = linear.bias
    return weight.data_ptr(), *weight.shape, reader.first, bias.data_ptr() if takes else 0


def _zeros(layer: HiddenLayer, state: nn.Module, optimizers: Sequence[UnitAdam]) -> Iterator[Zeros]:
    """All numbers of units that are to be zero afterwards."""
    for name in ("utility", "mean_activation", "age"):
        yield _rows(state.get_buffer(name))
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
    size, apart = tensor.element_size(), tensor.numel() // len(tensor)
    return tensor.data_ptr() + first * apart * size, apart * size, apart, size, size


def _columns(tensor: Tensor, first: int) -> Zeros:
    """A unit for each column, the first of them at column `first`."""
    size, (rows, columns) = tensor.element_size(), tensor.shape
    return tensor.data_ptr() + first * size, size, rows, columns * size, size
