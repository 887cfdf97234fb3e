"""The loops of native.c, one set for each floating type; without them everything is done by torch's own calls.

They are given addresses, so that one call serves all tensors of an optimizer or a network. Whoever calls them keeps the
tensors alive, and has seen that they are dense, on the CPU and of one type (`addressable`).
"""

from __future__ import annotations

import ctypes
import importlib.util
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

MISSING = (
    "Pliant's compiled part is missing or out of date: install a C compiler (such as gcc) and install Pliant again "
    "(python -m pip install -e .)"
)
_ADDRESS, _COUNT, _NUMBER = ctypes.c_void_p, ctypes.c_int64, ctypes.c_double
_TABLE = [_ADDRESS, _COUNT]  # an array and its length
_SIGNATURES = {
    "adam": [*_TABLE, _ADDRESS, *_TABLE, *_TABLE, _ADDRESS],
    "contribution": [*_TABLE, _ADDRESS, _NUMBER, _COUNT, _COUNT, _COUNT, _ADDRESS, _ADDRESS],
    "through": [_ADDRESS, _ADDRESS, _COUNT, _COUNT, _COUNT, _ADDRESS],
    "columns": [_ADDRESS, _COUNT, _COUNT, _ADDRESS],
    "squares": _TABLE,
    "clip": [*_TABLE, _NUMBER],
    "normalized": [_ADDRESS, _COUNT, _ADDRESS],
    "gaussian": [*[_ADDRESS] * 5, _COUNT, _COUNT, _NUMBER, _NUMBER, *[_ADDRESS] * 4],
    "categorical": [*[_ADDRESS] * 4, _COUNT, _COUNT, _NUMBER, _NUMBER, *[_ADDRESS] * 3],
    "squared_error": [*[_ADDRESS] * 3, _COUNT, _NUMBER, _NUMBER, _ADDRESS],
    "squashed": [*[_ADDRESS] * 5, _COUNT, _COUNT, _ADDRESS],
    "squashed_slopes": [*[_ADDRESS] * 6, _COUNT, *[_NUMBER] * 3, _ADDRESS, _ADDRESS],
    "bellman": [*[_ADDRESS] * 3, _COUNT, *[_ADDRESS] * 4, _COUNT, _NUMBER, _NUMBER],
    "actor_loss": [*_TABLE, _ADDRESS, _COUNT, _NUMBER, _ADDRESS, _ADDRESS],
    "through_chosen": [*[_ADDRESS] * 3, _COUNT, _COUNT, _COUNT],
    "polyak": [*_TABLE, _NUMBER],
    "transitions": [_ADDRESS, *_TABLE, _COUNT, _COUNT, _ADDRESS],
}
_TELLING = ("squares", "squared_error", "bellman", "actor_loss")  # which return one number


@dataclass(frozen=True)
class Native:
    """The functions of native.c for one floating type, by their names there."""

    adam: Any
    contribution: Any
    through: Any
    columns: Any
    squares: Any
    clip: Any
    normalized: Any
    gaussian: Any
    categorical: Any
    squared_error: Any
    squashed: Any
    squashed_slopes: Any
    bellman: Any
    actor_loss: Any
    through_chosen: Any
    polyak: Any
    transitions: Any


def _load() -> dict[torch.dtype, Native]:
    found = importlib.util.find_spec("plasticity._native")
    if found is None or found.origin is None:
        return {}
    library = ctypes.CDLL(found.origin)
    sets = {}
    for kind in (torch.float32, torch.float64):
        functions = {}
        for name, arguments in _SIGNATURES.items():
            exported = f"{name}_{str(kind).removeprefix('torch.')}"
            if not hasattr(library, exported):
                return {}  # built from an earlier version
            function = functions[name] = getattr(library, exported)
            function.argtypes, function.restype = arguments, _NUMBER if name in _TELLING else None
        sets[kind] = Native(**functions)
    return sets


NATIVE = _load()


def addressable(*tensors: Tensor) -> bool:
    """Whether `NATIVE` can work on these: dense, on the CPU, and all of one floating type."""
    kind = tensors[0].dtype
    return kind in NATIVE and all(
        tensor.dtype == kind and tensor.device.type == "cpu" and tensor.is_contiguous() for tensor in tensors
    )
