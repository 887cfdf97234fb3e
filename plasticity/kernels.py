"""Loops compiled by Numba, for tensors on the CPU: what is worth more than a handful of torch's own calls.

Kernels are given addresses, so that one call serves all tensors of an optimizer or a network; whoever calls them keeps
the tensors alive, and has seen that they are contiguous and on the CPU (`addressable`). They release the GIL, and what
they compile to is kept in `__pycache__`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba
import numpy as np
import torch
from numba import carray  # type: ignore[attr-defined]
from numba.core import cgutils, types
from numba.extending import intrinsic
from numpy.typing import NDArray
from torch import Tensor

Function = TypeVar("Function", bound=Callable[..., Any])
Addresses = NDArray[np.int64]
# sums may be taken in any order and products fused; NaN and infinity stay what they are
ALLOWED = {"contract", "reassoc", "nsz", "arcp"}
TYPES = {torch.float32: np.float32, torch.float64: np.float64}


def compiled(function: Function) -> Function:
    """Numba's compiler, with this project's settings."""
    made: Any = numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=ALLOWED)(function)
    return made  # type: ignore[no-any-return]


def addressable(*tensors: Tensor) -> bool:
    """Whether kernels can work on these: dense, on the CPU, and all of one floating type."""
    kind = tensors[0].dtype
    return kind in TYPES and all(
        tensor.dtype == kind and tensor.device.type == "cpu" and tensor.is_contiguous() for tensor in tensors
    )


def _as_pointer(typing: Any, address: Any) -> Any:
    """An integer as a pointer."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(address), generate


_pointer: Any = intrinsic(_as_pointer)


@compiled
def vector(address: int, size: int, like: Any) -> Any:
    """The array (size,) at an address, of the type of the NumPy number `like`."""
    return carray(_pointer(address), size, like.dtype)


@compiled
def matrix(address: int, rows: int, columns: int, like: Any) -> Any:
    """The array (rows, columns) at an address."""
    return carray(_pointer(address), (rows, columns), like.dtype)


@compiled
def add_columns(values: Any, first: int, into: Any) -> None:
    """Add up columns first, first + 1, ...; four rows at a time, so that sums are seldom loaded and stored."""
    rows, units = len(values), len(into)
    last = first + units
    whole = rows - rows % 4
    for row in range(0, whole, 4):
        a, b = values[row][first:last], values[row + 1][first:last]
        c, d = values[row + 2][first:last], values[row + 3][first:last]
        for i in range(units):
            into[i] += (a[i] + b[i]) + (c[i] + d[i])
    for row in range(whole, rows):
        a = values[row][first:last]
        for i in range(units):
            into[i] += a[i]


@compiled
def add_magnitudes(values: Any, first: int, into: Any) -> None:
    """The same with absolute values."""
    rows, units = len(values), len(into)
    last = first + units
    whole = rows - rows % 4
    for row in range(0, whole, 4):
        a, b = values[row][first:last], values[row + 1][first:last]
        c, d = values[row + 2][first:last], values[row + 3][first:last]
        for i in range(units):
            into[i] += (abs(a[i]) + abs(b[i])) + (abs(c[i]) + abs(d[i]))
    for row in range(whole, rows):
        a = values[row][first:last]
        for i in range(units):
            into[i] += abs(a[i])
