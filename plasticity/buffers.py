"""Tensors of a method that are saved and loaded with it: one for each of some parameters or layers, and counts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from torch import Tensor, nn


class Buffers(nn.Module):
    """A list of tensors that is saved, loaded and moved with its module: what `nn.ParameterList` is to parameters.

    The list has storages of its own: it copies what it is given, and nobody else's writes show up in it.
    """

    def __init__(self, tensors: Iterable[Tensor]):
        super().__init__()
        for place, tensor in enumerate(tensors):
            self.register_buffer(str(place), tensor.detach().clone())

    def __len__(self) -> int:
        return len(self._buffers)

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.buffers(recurse=False))


class HostCounts(nn.Module):
    """A module whose counts and flags stay on the CPU wherever it is moved.

    They are buffers of no dimension that hold a whole number or a truth, read at every gradient step to decide what to
    do: on a GPU each look would wait for all that is under way.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        kept = {
            name: buffer
            for name, buffer in self._buffers.items()
            if buffer is not None and buffer.dim() == 0 and not buffer.is_floating_point()
        }
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._buffers.update(kept)
        return self
