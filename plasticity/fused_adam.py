"""One pass over all parameters of a group: Adam with a count for each row and column, as fast as with one for all."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from operator import is_
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from plasticity.kernels import TYPES, addressable, compiled, matrix, vector

LONGEST = 200_000  # of the tables of bias corrections; counts beyond it are worked out one by one
_LIKE = {kind: (np.zeros(1, own), np.zeros(1, np.int64)) for kind, own in TYPES.items()}


class FusedAdam:
    """Steps of dense parameters on the CPU; remembers where their tensors lie while these stay the same."""

    def __init__(self) -> None:
        self._seen: dict[nn.Parameter, _Seen] = {}
        self._tables: dict[tuple[nn.Parameter, ...], NDArray[np.int64]] = {}

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
        if (table := self._tables.get(key)) is None:
            table = self._tables[key] = np.array([self._seen[parameter].row for parameter in parameters], np.int64)
        beta1, beta2 = group["betas"]
        decay = 0.0 if group["decoupled"] else group["weight_decay"]
        numbers = np.array((group["lr"], beta1, beta2, group["eps"], decay), np.float64)
        _step(table, numbers, corrections(beta1), corrections(beta2), *_LIKE[kind])


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


@functools.lru_cache(maxsize=8)
def corrections(beta: float) -> NDArray[np.float64]:
    """1 - beta^count for each count until it is 1; the last entry stands for all counts beyond, if it is."""
    needed = 1 if beta == 0 else math.ceil(math.log(2**-54) / math.log(beta))
    counts = np.arange(min(needed, LONGEST) + 1, dtype=np.float64)
    found: NDArray[np.float64] = 1 - beta**counts if beta == 0 else -np.expm1(counts * math.log(beta))
    return found


@compiled
def _correction(beta: float, count: int, table: Any) -> Any:
    if count < len(table):
        return table[count]
    return 1.0 if table[-1] == 1.0 else 1.0 - beta**count


@compiled
def _fill(counts: Any, numbers: Any, first: Any, second: Any, size: Any, scale: Any) -> Any:
    """For each count the step's size lr / (1 - beta1^count), and 1 / sqrt(1 - beta2^count)."""
    for k in range(len(counts)):
        # a count of 0 can stand beside a larger one only: the smaller of two counts, which decides, has been raised
        size[k] = numbers[0] / _correction(numbers[1], counts[k], first)
        scale[k] = 1.0 / np.sqrt(_correction(numbers[2], counts[k], second))


@compiled
def _step(table: Any, numbers: Any, first: Any, second: Any, like: Any, whole: Any) -> None:
    # taken out of the loops as numbers of the parameters' own type
    n = np.empty(5, like.dtype)
    n[0], n[1], n[2], n[3], n[4] = numbers[4], numbers[2], 1.0 - numbers[1], 1.0 - numbers[2], numbers[3]
    decay, keep, new1, new2, eps = n[0], n[1], n[2], n[3], n[4]
    for t in range(len(table)):
        rows, columns = table[t, 4], table[t, 5]
        step = vector(table[t, 6], 1, numbers)
        step[0] += 1
        if table[t, 7] == 0:  # one count for all
            size = rows * columns
            p, g = vector(table[t, 0], size, like), vector(table[t, 1], size, like)
            m, v = vector(table[t, 2], size, like), vector(table[t, 3], size, like)
            count = np.array([np.int64(step[0])])
            both = np.empty((2, 1), like.dtype)
            _fill(count, numbers, first, second, both[0], both[1])
            length, scale = both[0, 0], both[1, 0]
            for i in range(size):
                gradient = g[i] + decay * p[i]
                mean = m[i] + (gradient - m[i]) * new1
                square = keep * v[i] + new2 * gradient * gradient
                m[i], v[i] = mean, square
                p[i] -= length * mean / (np.sqrt(square) * scale + eps)
            continue
        by_row, by_column = np.empty((2, rows), like.dtype), np.zeros((2, columns), like.dtype)
        counts = vector(table[t, 7], rows, whole)
        counts += 1
        _fill(counts, numbers, first, second, by_row[0], by_row[1])
        if table[t, 8] != 0:
            counts = vector(table[t, 8], columns, whole)
            counts += 1
            _fill(counts, numbers, first, second, by_column[0], by_column[1])
        P, G = matrix(table[t, 0], rows, columns, like), matrix(table[t, 1], rows, columns, like)
        M, V = matrix(table[t, 2], rows, columns, like), matrix(table[t, 3], rows, columns, like)
        for j in range(rows):
            row_length, row_scale = by_row[0, j], by_row[1, j]
            for i in range(columns):
                gradient = G[j, i] + decay * P[j, i]
                mean = M[j, i] + (gradient - M[j, i]) * new1
                square = keep * V[j, i] + new2 * gradient * gradient
                M[j, i], V[j, i] = mean, square
                # the smaller count decides, and it has the smaller correction
                length, scale = max(row_length, by_column[0, i]), max(row_scale, by_column[1, i])
                P[j, i] -= length * mean / (np.sqrt(square) * scale + eps)
