"""The same work on many things, by several threads that each have one core."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

from plasticity.blas import of_numpy
from plasticity.native import one_thread

Result = TypeVar("Result")
_numpys = of_numpy()


def side_by_side(act: Callable[..., Result], *arguments: Iterable[Any]) -> list[Result]:
    """`[*map(act, *arguments)]` by as many threads as torch has, where almost all of the time is torch's and NumPy's.

    Ranks of several layers take three quarters of the time that they take one after the other, each with all cores.
    """
    threads = torch.get_num_threads()
    with one_thread(), _one_thread_of_numpy():
        if threads == 1:
            return [*map(act, *arguments)]
        with ThreadPoolExecutor(threads) as pool:
            return [*pool.map(act, *arguments)]


@contextmanager
def _one_thread_of_numpy() -> Iterator[None]:
    before = None if _numpys is None or _numpys.set_threads is None else _numpys.set_threads(1)
    try:
        yield
    finally:
        if before is not None and _numpys is not None:
            _numpys.set_threads(before)
