"""One pass over all parameters of a group: Adam with a count for each row and column, as fast as with one for all."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from operator import is_
from typing import Any

import numpy as np
import torch
from torch import nn

from plasticity.native import NATIVE, Table, Work, addressable, halves, table, together

FEW = 8_000  # weights for which a second thread is not worth asking
LONGEST = 200_000  # of the tables of bias corrections; those of counts beyond it are worked out one by one


class FusedAdam:
    """Steps of dense parameters on the CPU; remembers where their tensors lie while these stay the same."""

    def __init__(self) -> None:
        self._seen: dict[nn.Parameter, _Seen] = {}
        self._tables: dict[tuple[nn.Parameter, ...], _Tables] = {}

    def step(
        self, parameters: Sequence[nn.Parameter], states: Sequence[Mapping[str, Any]], group: Mapping[str, Any]
    ) -> list[nn.Parameter]:
        """Count, and take a step of, all that can be taken here; decoupled decay has been done. Returns the others."""
        taken: dict[torch.dtype, list[nn.Parameter]] = {}
        left, moved = [], False
        for parameter, state in zip(parameters, states, strict=True):
            seen = self._seen.get(parameter)
            if seen is None or not seen.still(parameter, state):
                seen, moved = self._look(parameter, state), True
            if seen.row is None:
                left.append(parameter)
            else:
                taken.setdefault(parameter.dtype, []).append(parameter)
        if moved:
            self._tables.clear()
        for kind, own in taken.items():
            self._step(own, kind, group)
        return left

    def _look(self, parameter: nn.Parameter, state: Mapping[str, Any]) -> _Seen:
        seen = self._seen[parameter] = _Seen(parameter, state)
        return seen

    def _step(self, parameters: list[nn.Parameter], kind: torch.dtype, group: Mapping[str, Any]) -> None:
        key = tuple(parameters)
        if key not in self._tables:
            rows = [seen.row for parameter in parameters if (seen := self._seen[parameter]).row]
            self._tables[key] = _Tables(rows, kind)
        beta1, beta2 = group["betas"]
        decay = 0.0 if group["decoupled"] else group["weight_decay"]
        self._tables[key]((group["lr"], beta1, beta2, group["eps"], decay))


class _Tables:
    """What the loops are told of several parameters, half of the work for either thread; holds all it points to."""

    def __init__(self, rows: Sequence[tuple[int, ...]], kind: torch.dtype):
        every = np.array(rows, np.int64)
        sizes = every[:, 4] * every[:, 5]
        self._numbers, self._shares = np.empty(5), [_Share(part, kind) for part in halves(every, sizes)]
        self._alone = sizes.sum() < FEW
        for share in self._shares:
            share.task[2] = self._numbers.ctypes.data
        self._betas = (-1.0, -1.0)

    def __call__(self, numbers: tuple[float, ...]) -> None:
        """numbers: lr, beta1, beta2, eps and decay."""
        self._numbers[:] = numbers
        if numbers[1:3] != self._betas:
            self._betas = (numbers[1], numbers[2])
            self._corrections = [corrections(numbers[1]), corrections(numbers[2], root=True)]
            for share in self._shares:
                share.task[3:7] = [number for own in self._corrections for number in own.argument]
        together(*(share.work for share in self._shares), alone=True if self._alone else None)


class _Share:
    def __init__(self, rows: Table, kind: torch.dtype):
        self._table = rows
        longest = int((self._table[:, 4] + self._table[:, 5]).max(initial=0))
        self._scratch = torch.empty(2 * longest, dtype=torch.float64)
        self.task = table([self._table.ctypes.data, len(rows), 0, 0, 0, 0, 0, self._scratch.data_ptr()])
        self.work = Work((NATIVE[kind].adam, self.task))


class _Seen:
    """Where the tensors of a parameter lie. row: None where the kernel cannot work on them."""

    def __init__(self, parameter: nn.Parameter, state: Mapping[str, Any]):
        self.tensors, self.address = _tensors(parameter, state), parameter.data_ptr()
        self.row: tuple[int, ...] | None = None
        gradient, mean, square, step, *counts, entries = self.tensors
        by_unit = counts[0] is not None
        if (
            gradient is not None
            and parameter.dim() > 0
            and entries is None
            and (parameter.dim() <= 2 or not by_unit)
            and addressable(parameter, gradient, mean, square)
        ):
            rows = parameter.shape[0]
            self.row = (
                *(tensor.data_ptr() for tensor in (parameter, gradient, mean, square)),
                rows,
                parameter.numel() // max(rows, 1),
                *(0 if count is None else count.data_ptr() for count in (step, *counts)),
            )

    def still(self, parameter: nn.Parameter, state: Mapping[str, Any]) -> bool:
        """Whether they are where they were."""
        return parameter.data_ptr() == self.address and all(map(is_, _tensors(parameter, state), self.tensors))


def _tensors(parameter: nn.Parameter, state: Mapping[str, Any]) -> tuple[Any, ...]:
    get = state.get
    return (
        parameter.grad,
        get("exp_avg"),
        get("exp_avg_sq"),
        get("step"),
        get("row_step"),
        get("column_step"),
        get("entry_step"),
    )


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
