"""Whether tensors whose addresses compiled code was told are still there."""

from __future__ import annotations

from collections.abc import Iterable
from operator import is_
from typing import Any, TypeAlias

from torch import Tensor

Place: TypeAlias = tuple[dict[Any, Any], Any]  # a mapping and a key of it


class Held:
    """Whatever lies in some places, such as `(module._parameters, "weight")`: tensors, or what they depend on."""

    def __init__(self, places: Iterable[Place]):
        places = [*places]
        self._mappings, self._keys = [of for of, _ in places], [key for _, key in places]
        self._found = self._look()
        self.tensors: list[Tensor] = [own for own in self._found if isinstance(own, Tensor)]
        self._sized = [own for own in self._found if isinstance(own, dict)]
        self._facts = self._ask()

    def stay(self) -> bool:
        """Whether the same objects are there, tensors lie where they lay, and mappings are as long as they were."""
        return all(map(is_, self._look(), self._found)) and self._ask() == self._facts

    def _look(self) -> list[Any]:
        return [*map(dict.get, self._mappings, self._keys)]

    def _ask(self) -> list[int]:
        tensors = self.tensors
        return [*map(Tensor.data_ptr, tensors), *map(Tensor.is_contiguous, tensors), *map(len, self._sized)]
