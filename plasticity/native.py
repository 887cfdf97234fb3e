"""The loops of native.c, one set for each floating type; without them everything is done by torch's own calls.

They are given addresses, so that one call serves all tensors of an optimizer or a network. Whoever calls them keeps the
tensors alive, and has seen that they are dense, on the CPU and of one type (`addressable`).

A task is one of the loops and the table of addresses and numbers that it reads; `Work` is a list of tasks, and
`together` does two of them at once. Which thread does what changes no result. Where numbers lie could, since compilers
treat the first and last ones of a loop by themselves: room for them is torch's, which always begins alike. Products of
matrices are those of a library that is there anyway (plasticity/blas.py).
"""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from struct import Struct
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from plasticity.blas import Products, of_torch, products

MISSING = (
    "Pliant's compiled part is missing or out of date: install a C compiler (such as gcc) and install Pliant again "
    "(python -m pip install -e .)"
)
Table: TypeAlias = NDArray[np.int64]
Tasks: TypeAlias = Sequence[tuple[Any, Table]]
_ADDRESS, _COUNT, _NUMBER = ctypes.c_void_p, ctypes.c_int64, ctypes.c_double
_FRACTION, _BITS = Struct("d"), Struct("q")
_LIST: list[Any] = [_ADDRESS, _COUNT]  # an array and its length
_SIGNATURES = {  # of what is no task
    "squashed_slopes": [*[_ADDRESS] * 6, _COUNT, *[_NUMBER] * 3, _ADDRESS, _ADDRESS],
    "bellman": [*[_ADDRESS] * 3, _COUNT, *[_ADDRESS] * 4, _COUNT, _NUMBER, _NUMBER],
    "actor_loss": [*_LIST, _ADDRESS, _COUNT, _NUMBER, _ADDRESS, _ADDRESS],
}
_TELLING = ("bellman", "actor_loss")  # which return one number


@dataclass(frozen=True)
class Native:
    """The functions of native.c for one floating type, by their names there."""

    squashed_slopes: Any
    bellman: Any
    actor_loss: Any
    # tasks
    contributions: Any
    replace: Any
    adam: Any
    squares: Any
    scale: Any
    gather: Any
    normalized: Any
    gaussian: Any
    categorical: Any
    squared_error: Any
    forward: Any
    from_heads: Any
    backward_above: Any
    backward_below: Any
    backward: Any
    input_gradient: Any
    polyak: Any
    squash_noise: Any
    transitions: Any


class Work:
    """Tasks that one thread does, one after the other: each a function of `Native`, and its table."""

    def __init__(self, *tasks: tuple[Any, Table]):
        self._tables = [table for _, table in tasks]
        addresses = [(ctypes.cast(task, _ADDRESS).value, table.ctypes.data) for task, table in tasks]
        self._array = np.array(addresses, np.uint64).reshape(-1, 2)
        self.arguments = self._array.ctypes.data, len(tasks)


NO_WORK = Work()


def together(first: Work, second: Work, *, alone: bool | None = None, wake: bool = True) -> None:
    """Do both, at once where torch is allowed more than one thread.

    alone: whether this thread does all of it; wake: whether it is worth waking another that sleeps, some 50 us.
    """
    if torch.get_num_threads() == 1 if alone is None else alone:
        _together(*NO_WORK.arguments, *first.arguments, False)
        _together(*NO_WORK.arguments, *second.arguments, False)
    else:
        _together(*first.arguments, *second.arguments, wake)


def table(numbers: Sequence[int | float]) -> Table:
    """A table as native.c reads it: fractions lie there as their bits (`put` changes one)."""
    bits = [_BITS.unpack(_FRACTION.pack(n))[0] if isinstance(n, float) else n for n in numbers]
    return np.array(bits, np.int64)


def put(into: Table, place: int, number: int | float) -> None:
    """Write a number into a table: a float as its bits."""
    if isinstance(number, float):
        into.view(np.float64)[place] = number
    else:
        into[place] = number


def addresses_and_sizes(tensors: Sequence[Tensor]) -> Table:
    """(tensors, 2), as `squares` and `scale` want them."""
    return np.array([(tensor.data_ptr(), tensor.numel()) for tensor in tensors], np.int64).reshape(-1, 2)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread for what is inside: so little that more would cost more than they save.

    OpenMP's threads, once used, look for more work for some milliseconds, and take cores from those that have some.
    """
    threads = torch.get_num_threads()
    if threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def halves(rows: Table, sizes: Table) -> tuple[Table, Table]:
    """Rows of a table in two, so that the sizes of what they stand for add up to about the same."""
    ends = np.cumsum([0, *sizes])
    cut = int(np.abs(ends - ends[-1] / 2).argmin())
    return np.ascontiguousarray(rows[:cut]), np.ascontiguousarray(rows[cut:])


def _load() -> tuple[dict[torch.dtype, Native], Any]:
    found = importlib.util.find_spec("plasticity._native")
    if found is None or found.origin is None:
        return {}, None
    library = ctypes.CDLL(found.origin)
    if not hasattr(library, "take_steps"):
        return {}, None  # built from an earlier version
    sets = {}
    for kind in (torch.float32, torch.float64):
        functions = {}
        for field in fields(Native):
            exported = f"{field.name}_{str(kind).removeprefix('torch.')}"
            if not hasattr(library, exported):
                return {}, None
            function = functions[field.name] = getattr(library, exported)
            function.argtypes = _SIGNATURES.get(field.name, [_ADDRESS])
            function.restype = _NUMBER if field.name in _TELLING else None
        sets[kind] = Native(**functions)
    library.together.argtypes, library.together.restype = [*_LIST, *_LIST, ctypes.c_int], None
    library.share.argtypes, library.share.restype = [*_LIST, _COUNT], None
    library.take_steps.argtypes, library.take_steps.restype = _LIST, _COUNT
    library.take_thread_setter.argtypes, library.take_thread_setter.restype = [_COUNT, _ADDRESS], None
    return sets, library


def use(found: Products) -> str:
    """Have products of matrices done by these from now on; whose they are."""
    _library.take_gemm_float32(ctypes.cast(found.sgemm, _ADDRESS))
    _library.take_gemm_float64(ctypes.cast(found.dgemm, _ADDRESS))
    _take_thread_setter(0, found)
    return found.owner


def _take_thread_setter(library: int, found: Products) -> None:
    _library.take_thread_setter(library, ctypes.cast(found.set_threads, _ADDRESS) if found.set_threads else None)


def _torchs() -> dict[torch.dtype, int]:
    found = of_torch()
    if _library is None or found is None:
        return {}
    _take_thread_setter(1, found)
    functions = {torch.float32: found.sgemm, torch.float64: found.dgemm}
    return {kind: ctypes.cast(function, _ADDRESS).value or 0 for kind, function in functions.items()}


NATIVE, _library = _load()
_together: Any = None if _library is None else _library.together
# share(tasks, how many, threads): so many threads do the same list of tasks at once; None: there are no other threads
share: Callable[[int, int, int], None] | None = None if _library is None else _library.share
take_steps: Callable[[int, int], int] | None = None if _library is None else _library.take_steps  # see native_steps.h
BLAS = "" if _library is None else use(products(bool(_library.is_intel())))
TORCHS = _torchs()  # addresses of what torch itself multiplies matrices with, where they are known


def addressable(*tensors: Tensor) -> bool:
    """Whether `NATIVE` can work on these: dense, on the CPU, and all of one floating type."""
    kind = tensors[0].dtype
    return kind in NATIVE and all(
        tensor.dtype == kind and tensor.device.type == "cpu" and tensor.is_contiguous() for tensor in tensors
    )
