"""Tensors of a method that are saved and loaded with it, one for each of some parameters or layers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

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
