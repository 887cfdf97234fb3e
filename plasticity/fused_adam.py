"""One pass over all parameters of a group: Adam with a count for each row and column, as fast as with one for all."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from itertools import chain
from operator import attrgetter, is_
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.graph import increment_version

from plasticity.native import NATIVE, Table, Work, addressable, halves, table, together

_gradient = attrgetter("grad")
FEW = 8_000  # weights for which a second thread is not worth asking
MOST = 8  # plans remembered: one for each group of parameters, and some for those that have no gradient at times
Halves: TypeAlias = tuple[tuple[Work, Work], bool | None]  # of some work; whether one thread does both, see `together`
LONGEST = 200_000  # of the tables of bias corrections; those of counts beyond it are worked out one by one


class FusedAdam:
    """Steps of dense parameters on the CPU; remembers where their tensors lie while these stay the same."""

    def __init__(self) -> None:
        self._plans: list[_Plan] = []
        self._sums: dict[int, ColumnSums] = {}
        self._plan: _Plan | None = None  # of the latest step
        self._latest: _Latest | None = None

    def column_sums(self, parameter: nn.Parameter) -> ColumnSums:
        """See `UnitAdam.column_sums`."""
        if id(parameter) not in self._sums:
            self._sums[id(parameter)] = ColumnSums(parameter)
            self._plans.clear()
            self._latest = None
        return self._sums[id(parameter)]

    def step(
        self, parameters: Sequence[nn.Parameter], states: Sequence[dict[str, Any]], group: Mapping[str, Any]
    ) -> list[nn.Parameter]:
        """Count, and take a step of, all that can be taken here; decoupled decay has been done. Returns the others."""
        plan = next((plan for plan in self._plans if plan.is_of(parameters, states)), None)
        if plan is None:
            for known in self._sums.values():
                if not known.has_room():
                    self._plans.clear()  # which point to what was there before
            plan = _Plan(parameters, states, self._sums)
            self._plans = [plan, *self._plans[: MOST - 1]]
        self._take(plan, group)
        self._plan, self._latest = plan, None
        return plan.left

    def remember(self, group: dict[str, Any], states: Mapping[Tensor, dict[str, Any]], stretch: object | None) -> None:
        """What the step was of that was just taken, for `again`; nothing outside of stretches."""
        plan = self._plan
        if stretch is not None and plan is not None and not plan.left and len(plan.parameters) == len(group["params"]):
            own = [*states.values()]
            gradients = [*map(_gradient, plan.parameters)]
            self._latest = _Latest(stretch, group, plan, gradients, own, [*map(len, own)])

    def again(self, group: dict[str, Any], states: Mapping[Tensor, dict[str, Any]], stretch: object | None) -> bool:
        """Take the step, if it is of what the one before was of, within a stretch (`Network.steady`); whether it is.

        states: of all parameters of the optimizer; nothing but they and gradients can be others than before.
        """
        if self._latest is None or not self._latest.holds(group, states, stretch):
            return False
        self._take(self._latest.plan, group)
        return True

    def unattended(
        self, group: dict[str, Any], states: Mapping[Tensor, dict[str, Any]], stretch: object | None
    ) -> Halves | None:
        """What `again` would do, for native_steps.h; None where it would do nothing. `attend` comes after."""
        if self._latest is None or not self._latest.holds(group, states, stretch):
            return None
        return self._latest.plan.prepared(group)

    def attend(self) -> None:
        """Note that parameters have changed by what `unattended` gave."""
        if self._latest is not None:
            self._note(self._latest.plan)

    def _take(self, plan: _Plan, group: Mapping[str, Any]) -> None:
        plan(group)
        self._note(plan)

    def _note(self, plan: _Plan) -> None:
        increment_version(plan.parameters)
        for known in plan.sums:
            known.version = known.of._version


class ColumnSums:
    """The sums of |weights| over the rows of a matrix, (columns,), as an optimizer's latest step left them.

    of: the matrix; of other parameters they are never known. version: which one of it the sums are of, as torch counts.
    """

    def __init__(self, of: nn.Parameter):
        self.of, self.version, self._seen = of, -1, torch.empty(0)
        self.room = of.new_zeros(of.shape[1:])

    def known(self) -> Tensor | None:
        """The sums, written over by the next step; None where torch knows of a change since, or before a step."""
        return self.room if self.version == self.of._version and self._seen.data_ptr() == self.of.data_ptr() else None

    def has_room(self) -> bool:
        """Whether there was room for the parameter as it is now; there is afterwards."""
        fits = self.room.shape == self.of.shape[1:] and self.room.dtype == self.of.dtype
        if not fits:
            self.room = self.of.new_zeros(self.of.shape[1:])
        return fits

    def hold(self) -> None:
        """They are of the tensor that there is now: nothing else can come to lie where it lies."""
        self._seen = self.of.detach()


class _Plan:
    """What is done with some parameters, as long as their tensors are these.

    parameters: all of them. left: those that cannot be taken. sums: those of the others' columns that were asked for.
    """

    def __init__(
        self, parameters: Sequence[nn.Parameter], states: Sequence[dict[str, Any]], sums: Mapping[int, ColumnSums]
    ):
        self.parameters, self._found = [*parameters], _found(parameters, states)
        self._addresses = [*map(Tensor.data_ptr, parameters)]
        self.left: list[nn.Parameter] = []
        self.sums: list[ColumnSums] = []
        rows: dict[torch.dtype, list[tuple[int, ...]]] = {}
        for parameter, state in zip(parameters, states, strict=True):
            if (row := _row(parameter, state)) is None:
                self.left.append(parameter)
                continue
            known = sums.get(id(parameter)) if parameter.dim() == 2 else None
            if known is not None:
                known.hold()
                self.sums.append(known)
            rows.setdefault(parameter.dtype, []).append((*row, 0 if known is None else known.room.data_ptr()))
        self._tables = [_Tables(own, kind) for kind, own in rows.items()]

    def is_of(self, parameters: Sequence[nn.Parameter], states: Sequence[dict[str, Any]]) -> bool:
        """Whether these are the parameters, and their tensors lie where they lay."""
        return (
            len(parameters) == len(self.parameters)
            and all(map(is_, parameters, self.parameters))
            and len(found := _found(parameters, states)) == len(self._found)
            and all(map(is_, found, self._found))
            and [*map(Tensor.data_ptr, parameters)] == self._addresses
        )

    def __call__(self, group: Mapping[str, Any]) -> None:
        numbers = _numbers(group)
        for tables in self._tables:
            tables.prepare(numbers)
            together(*tables.works, alone=tables.alone)

    def prepared(self, group: Mapping[str, Any]) -> Halves | None:
        """What it would do; None where that is more than one thing."""
        if len(self._tables) != 1:
            return None
        (tables,) = self._tables
        tables.prepare(_numbers(group))
        return tables.works, tables.alone


def _numbers(group: Mapping[str, Any]) -> tuple[float, ...]:
    """lr, beta1, beta2, eps and decay."""
    decay = 0.0 if group["decoupled"] else group["weight_decay"]
    return (group["lr"], *group["betas"], group["eps"], decay)


class _Latest(NamedTuple):
    """What the latest step was of; states: of all parameters of the optimizer, sizes: how much is in each."""

    stretch: object
    group: dict[str, Any]
    plan: _Plan
    gradients: list[Tensor | None]
    states: list[dict[str, Any]]
    sizes: list[int]

    def holds(self, group: dict[str, Any], states: Mapping[Tensor, dict[str, Any]], stretch: object | None) -> bool:
        """Whether the next one is of the same."""
        return (
            stretch is self.stretch
            and group is self.group
            and all(map(is_, map(_gradient, self.plan.parameters), self.gradients))
            and len(states) == len(self.states)
            and all(map(is_, states.values(), self.states))
            and [*map(len, self.states)] == self.sizes
        )


def _found(parameters: Sequence[nn.Parameter], states: Sequence[dict[str, Any]]) -> list[Any]:
    """Gradients, and all that is remembered of the parameters."""
    return [*map(_gradient, parameters), *chain.from_iterable(map(dict.values, states))]


def _row(parameter: nn.Parameter, state: dict[str, Any]) -> tuple[int, ...] | None:
    """What native.h reads of a parameter, or None where it cannot work on it."""
    gradient, mean, square = parameter.grad, state["exp_avg"], state["exp_avg_sq"]
    counts = [state.get("row_step"), state.get("column_step")]
    plain = parameter.dim() > 0 and "entry_step" not in state and (parameter.dim() <= 2 or counts[0] is None)
    if gradient is None or not plain or not addressable(parameter, gradient, mean, square):
        return None
    rows = parameter.shape[0]
    return (
        *(tensor.data_ptr() for tensor in (parameter, gradient, mean, square)),
        rows,
        parameter.numel() // max(rows, 1),
        *(0 if count is None else count.data_ptr() for count in (state["step"], *counts)),
    )


class _Tables:
    """What the loops are told of several parameters, half of the work for either thread; holds all it points to."""

    def __init__(self, rows: Sequence[tuple[int, ...]], kind: torch.dtype):
        every = np.array(rows, np.int64)
        sizes = every[:, 4] * every[:, 5]
        self._numbers, self._shares = np.empty(5), [_Share(part, kind) for part in halves(every, sizes)]
        self.works = (self._shares[0].work, self._shares[1].work)
        self.alone = True if sizes.sum() < FEW else None
        for share in self._shares:
            share.task[2] = self._numbers.ctypes.data
        self._told: tuple[float, ...] = ()

    def prepare(self, numbers: tuple[float, ...]) -> None:
        """numbers: see `_numbers`."""
        if numbers == self._told:
            return
        self._numbers[:] = numbers
        if numbers[1:3] != self._told[1:3]:
            self._corrections = [corrections(numbers[1]), corrections(numbers[2], root=True)]
            for share in self._shares:
                share.task[3:7] = [number for own in self._corrections for number in own.argument]
        self._told = numbers


class _Share:
    def __init__(self, rows: Table, kind: torch.dtype):
        self._table = rows
        longest = int((self._table[:, 4] + self._table[:, 5]).max(initial=1))
        self._scratch = torch.empty(2 * longest, dtype=torch.float64)
        self.task = table([self._table.ctypes.data, len(rows), 0, 0, 0, 0, 0, self._scratch.data_ptr()])
        self.work = Work((NATIVE[kind].adam, self.task))


class _Corrections:
    """1 / (1 - beta^count), or its root, for each count until it is 1; then the last stands for all counts beyond."""

    def __init__(self, beta: float, root: bool = False):
        needed = 1 if beta == 0 else math.ceil(math.log(2**-54) / math.log(beta))
        counts = np.arange(min(needed, LONGEST) + 1, dtype=np.float64)
        counts[0] = 1  # there is no step 0
        found = 1 - beta**counts if beta == 0 else -np.expm1(counts * math.log(beta))
        self.table = 1 / (np.sqrt(found) if root else found)
        self.argument = (self.table.ctypes.data, len(self.table))


corrections = functools.lru_cache(maxsize=8)(_Corrections)
