"""Plain trees to bytes and back, to the last bit and type, without pickle.

A plain tree is made of None, bool, int, float, str, NumPy arrays and numbers, torch tensors, and of lists, tuples,
sets, deques and dicts of them. Its structure becomes JSON, its arrays safetensors: reading either can run no code.
Only mappings and tensors may be of subclasses; they come back as dicts and tensors.

All arrays of one type lie in one row, since a thousand small ones (a simulator's) would take longer to name than to
write; the structure says where each begins.
"""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import safetensors.numpy
import torch
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]  # type -> all of it, one after another, as safetensors names and holds them
Place = list[Any]  # type, where it begins, and shape
COMPACT = 32  # a list of at least so many floats or integers is kept as an array, which is quicker to read and write
# by falling size of a number, so that each kind begins at a multiple of it
_KINDS = {"f8": "F64", "i8": "I64", "u8": "U64", "f4": "F32", "i4": "I32", "u4": "U32", "f2": "F16", "i2": "I16"}
_KINDS |= {"u2": "U16", "i1": "I8", "u1": "U8", "b1": "BOOL"}  # of NumPy -> of safetensors
_SCALARS = frozenset((bool, int, float, str, type(None)))
_TAGGED = re.compile(r"\$").match  # a key that would be read as one of ours
_TENSORS = (
    *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
)


class _Kept:
    """The arrays of a tree that is being encoded."""

    def __init__(self) -> None:
        self._flat: dict[str, list[NDArray[Any]]] = defaultdict(list)
        self._sizes: dict[str, int] = defaultdict(int)

    def add(self, array: NDArray[Any]) -> Place:
        kind = array.dtype.str
        place = [kind, self._sizes[kind], *array.shape]
        self._flat[kind].append(array.ravel())
        self._sizes[kind] += array.size
        return place

    def serialized(self) -> bytes:
        """As a safetensors file; safetensors itself would copy all of it several times."""
        about, end = {}, 0
        parts: list[bytes | memoryview] = []
        for kind in sorted(self._flat, key=lambda kind: list(_KINDS).index(kind[1:])):
            begin, end = end, end + self._sizes[kind] * int(kind[2:])
            about[kind] = {"dtype": _KINDS[kind[1:]], "shape": [self._sizes[kind]], "data_offsets": [begin, end]}
            parts += [array.data for array in self._flat[kind]]
        head = json.dumps(about, separators=(",", ":")).encode()
        head += b" " * (-len(head) % 8)
        return b"".join([len(head).to_bytes(8, "little"), head, *parts])


def encode(tree: Any) -> tuple[bytes, bytes]:
    """The structure as JSON, and the arrays as safetensors. Raises `TypeError` naming the path of what is not plain."""
    arrays = _Kept()
    structure = _encode(tree, "", arrays)
    return json.dumps(structure, separators=(",", ":")).encode(), arrays.serialized()


def decode(structure: bytes, arrays: bytes) -> Any:
    """The tree that `encode` was given; tensors are on the CPU."""
    return _decode(json.loads(structure), safetensors.numpy.load(arrays))


def _encode(value: Any, path: str, arrays: _Kept) -> Any:
    kind = type(value)
    if kind in _SCALARS:
        return value
    if kind is np.ndarray and _is_number(value.dtype):
        return {"$array": arrays.add(value)}
    if isinstance(value, torch.Tensor):
        return _encode_tensor(value.detach().cpu(), path, arrays)
    if isinstance(value, np.generic) and _is_number(value.dtype):
        return {"$number": [value.dtype.str, value.tobytes().hex()]}
    if kind is dict or isinstance(value, Mapping):  # the latter takes a while
        if set(map(type, value)) <= {str} and not any(map(_TAGGED, value)):
            return {
                key: item if type(item) in _SCALARS else _encode(item, f"{path}.{key}", arrays)
                for key, item in value.items()
            }
        pairs = [
            [_encode(key, f"{path} (a key)", arrays), _encode(item, f"{path}.{key}", arrays)]
            for key, item in value.items()
        ]
        return {"$dict": pairs}
    if kind is list:
        return _encode_items(value, path, arrays)
    if kind is tuple:
        return {"$tuple": _encode_items(list(value), path, arrays)}
    if kind is set:
        return {"$set": _encode_items(sorted(value, key=repr), path, arrays)}
    if kind is deque:
        return {"$deque": _encode_items(list(value), path, arrays), "maxlen": value.maxlen}
    raise _not_plain(path, f"array of {value.dtype}" if kind is np.ndarray else kind.__name__)


def _encode_tensor(tensor: torch.Tensor, path: str, arrays: _Kept) -> Any:
    if tensor.dtype not in _TENSORS or tensor.layout != torch.strided:
        raise _not_plain(path, f"tensor of {tensor.dtype}, {tensor.layout}")
    if tensor.dtype == torch.bfloat16:  # which NumPy has not
        return {"$bfloat16": arrays.add(tensor.view(torch.int16).numpy())}
    return {"$tensor": arrays.add(tensor.numpy())}


def _is_number(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in "biuf" and dtype.itemsize <= 8 and dtype.isnative


def _not_plain(path: str, what: str) -> TypeError:
    return TypeError(f"{path.removeprefix('.') or 'the tree'}: {what} cannot be kept in a checkpoint")


def _encode_items(items: list[Any], path: str, arrays: _Kept) -> Any:
    if len(items) >= COMPACT:
        kinds = {type(item) for item in items}
        if kinds == {float}:
            return {"$floats": arrays.add(np.array(items, np.float64))}
        if kinds == {int} and min(items) >= -(2**63) and max(items) < 2**63:
            return {"$ints": arrays.add(np.array(items, np.int64))}
    return [
        item if type(item) in _SCALARS else _encode(item, f"{path}[{index}]", arrays)
        for index, item in enumerate(items)
    ]


def _at(place: Place, arrays: Arrays) -> NDArray[Any]:
    kind, start, *shape = place
    return arrays[kind][start : start + math.prod(shape)].reshape(shape).copy()


def _decode(value: Any, arrays: Arrays) -> Any:
    if isinstance(value, list):
        return [_decode(item, arrays) for item in value]
    if not isinstance(value, dict):
        return value
    tag = next(iter(value), "")
    if tag not in _READERS:
        return {key: _decode(item, arrays) for key, item in value.items()}
    return _READERS[tag](value, arrays)


_READERS: dict[str, Callable[[Any, Arrays], Any]] = {
    "$tensor": lambda value, arrays: torch.from_numpy(_at(value["$tensor"], arrays)),
    "$array": lambda value, arrays: _at(value["$array"], arrays),
    "$bfloat16": lambda value, arrays: torch.from_numpy(_at(value["$bfloat16"], arrays)).view(torch.bfloat16),
    "$number": lambda value, arrays: np.frombuffer(bytes.fromhex(value["$number"][1]), value["$number"][0])[0],
    "$floats": lambda value, arrays: _at(value["$floats"], arrays).tolist(),
    "$ints": lambda value, arrays: _at(value["$ints"], arrays).tolist(),
    "$dict": lambda value, arrays: {_decode(k, arrays): _decode(item, arrays) for k, item in value["$dict"]},
    "$tuple": lambda value, arrays: tuple(_decode(value["$tuple"], arrays)),
    "$set": lambda value, arrays: set(_decode(value["$set"], arrays)),
    "$deque": lambda value, arrays: deque(_decode(value["$deque"], arrays), maxlen=value["maxlen"]),
}
