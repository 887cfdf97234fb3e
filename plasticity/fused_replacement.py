"""Replacement of units in one pass: the picks of continual backprop and what `plasticity.replacement` does with them.

For single linear layers on the CPU; equals both but for rounding.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.graph import increment_version

from plasticity.fused_adam import corrections
from plasticity.held import Held, Place
from plasticity.intervention import Randomness
from plasticity.layers import HiddenLayer, Reader, weight_of
from plasticity.native import NATIVE, addressable, table
from plasticity.network import Network
from plasticity.optim import UnitAdam

Zeros = tuple[int, int, int, int, int]  # as native_units.h reads them
OTHER = 5  # numbers of a layer there that are others each time: count, draws, fresh rows, activations and their rows


class FusedReplacement:
    """Replaces the least useful units of one network; remembers where a layer's tensors lie while they stay there.

    decay, maturity: of continual backprop. transfer: mean activations move into the readers' biases. reset: the
    optimizers' states of replaced units start afresh.
    """

    def __init__(self, decay: float, maturity: int, transfer: bool, reset: bool):
        self._settings = (decay, maturity, transfer, reset)
        self._corrections = corrections(decay)
        self._numbers = (*self._corrections.argument, float(decay), maturity, int(transfer))
        self._reset = reset
        self._plans: dict[HiddenLayer, _Plan] = {}
        self._turns: dict[tuple[HiddenLayer, ...], _Turn] = {}

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
            plan = _Plan(layer, state, optimizers, Held(_places(layer, network, state, optimizers)), *self._numbers)
            if not all(tensor.is_contiguous() for tensor in plan.held.tensors):
                return False
            plan.steady = network.steady
            self._plans[layer] = plan
            self._turns.clear()
        return plan.reads(network.activations[layer.name])

    def __call__(self, network: Network, counts: Mapping[HiddenLayer, int], random: Randomness) -> None:
        """Replace so many units of each layer, all of which `takes` has just been asked for.

        random: which of equally useful units, then fresh incoming weights, as `ContinualBackprop` draws them. Also
        counts what is replaced, and notes the mean absolute change of the readers' outputs.
        """
        layers = tuple(counts)
        if layers not in self._turns:
            self._turns[layers] = _Turn([self._plans[layer] for layer in layers])
        self._turns[layers](counts.values(), [network.activations[layer.name] for layer in layers], random)


class _Turn:
    """What is done when units of just these layers are replaced; they mostly come again together."""

    def __init__(self, plans: Sequence[_Plan]):
        self._plans, self._draws = plans, torch.empty(sum(plan.units for plan in plans))
        self._places = (self._draws.data_ptr() + 4 * np.cumsum([0, *(plan.units for plan in plans)])).tolist()
        self._scratch = torch.empty(max(plan.units for plan in plans), dtype=torch.float64)
        self._task = table([self._scratch.data_ptr(), len(plans), *(plan.address for plan in plans)])
        self._address: int = self._task.ctypes.data
        self._replace = NATIVE[plans[0].kind].replace
        self._weights = [weight for plan in plans for weight in plan.weights]

    def __call__(self, counts: Iterable[int], activations: Sequence[Tensor], random: Randomness) -> None:
        """Replace so many units of each layer."""
        self._draws.uniform_(generator=random.generator)
        longest = 0
        for plan, count, place, hidden in zip(self._plans, counts, self._places, activations, strict=False):
            plan.prepare(count, place, hidden, random)
            longest = max(longest, count * len(hidden))
        if len(self._scratch) < longest:
            self._scratch = torch.empty(longest, dtype=torch.float64)
            self._task[0] = self._scratch.data_ptr()
        self._replace(self._address)
        increment_version(self._weights)


class _Plan:
    """What the kernel reads of a layer; holds all it points to.

    kind, units: of the layer. weights: all that change. address: of the table. steady: see `Network.steady`, when last
    looked at. numbers: what the kernel reads last; whether means move is the last of them.
    """

    steady: object | None = None

    def __init__(
        self,
        layer: HiddenLayer,
        state: nn.Module,
        optimizers: Sequence[UnitAdam],
        held: Held,
        *numbers: float,
    ):
        self.kind, self.units = layer.weight.dtype, layer.units
        self._bound, self._bounds = state.get_buffer("bound"), (-1, 0.0)  # a version of it, and what it says
        self._room = self._fresh = torch.empty(1, layer.weight.shape[1])
        self.held = held
        self.weights = [layer.weight, *(weight_of(reader.linear) for reader in layer.readers)]
        self._states = [(o.state, p, o.state.get(p)) for o in optimizers for p in _with_states(layer)]
        self._readers = table([n for reader in layer.readers for n in _reader(layer, reader, bool(numbers[-1]))])
        self._zeros = table([n for entry in _zeros(layer, state, optimizers) for n in entry])
        self._picked = torch.empty(layer.units, dtype=torch.int64)
        self._means = torch.zeros(layer.units, dtype=layer.weight.dtype)
        told = (state._buffers[name] for name in ("utility", "mean_activation", "age", "replaced", "output_change"))
        self._table = table(
            [
                *(*[0] * OTHER, layer.units, layer.weight.data_ptr(), layer.weight.shape[1]),
                *(tensor.data_ptr() for tensor in told if tensor is not None),
                *(self._picked.data_ptr(), self._means.data_ptr(), self._readers.ctypes.data, len(layer.readers)),
                *(self._zeros.ctypes.data, len(self._zeros) // 5, *numbers),
            ]
        )
        self.address: int = self._table.ctypes.data
        self._numbers = self._table.data

    def prepare(self, count: int, draws: int, hidden: Tensor, random: Randomness) -> None:
        """Say how many units are to be replaced. draws: where those of the layer lie."""
        if self._bounds[0] != self._bound._version:
            self._bounds = self._bound._version, float(self._bound)
        if len(self._room) != count:
            self._room = torch.empty(count, self._room.shape[1])
        bound = self._bounds[1]
        self._fresh = self._room.uniform_(-bound, bound, generator=random.generator).to(self.kind)
        n = self._numbers
        n[0], n[1], n[2], n[3], n[4] = count, draws, self._fresh.data_ptr(), hidden.data_ptr(), len(hidden)

    def reads(self, hidden: Tensor) -> bool:
        """Whether this is what a layer of this kind puts out."""
        fits = hidden.dim() == 2 and hidden.dtype == self.kind and hidden.device.type == "cpu"
        return fits and hidden.is_contiguous()

    def stays(self, stretch: object | None) -> bool:
        """Whether all is where it was; within a stretch only states may begin anew."""
        if stretch is not None and stretch is self.steady:
            return all(every.get(parameter) is own for every, parameter, own in self._states)
        self.steady = stretch
        return self.held.stay()


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


def _places(layer: HiddenLayer, network: Network, state: nn.Module, optimizers: Sequence[UnitAdam]) -> Iterator[Place]:
    """Where all lies that belongs to a layer."""
    yield vars(network), "optimizers"
    yield vars(network), "sync_twins"
    for linear in (layer.linear, *(reader.linear for reader in layer.readers)):
        yield linear._parameters, "weight"
        yield linear._parameters, "bias"
    for name in state._buffers:
        yield state._buffers, name
    for optimizer in optimizers:
        for parameter in _with_states(layer):
            yield optimizer.state, parameter
            own = optimizer.state_by_unit(parameter)
            for name in own:
                yield own, name


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
