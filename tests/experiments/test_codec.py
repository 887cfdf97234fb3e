"""Plain trees come back from a checkpoint with every type and every bit."""

from __future__ import annotations

import json
import math
import random
from collections import deque, namedtuple
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import nn

from experiments.checkpoint.codec import COMPACT, decode, encode

DTYPES = (np.bool_, np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64)
FLOATS = (np.float16, np.float32, np.float64)
TENSORS = (
    *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
)

dtypes = st.sampled_from([np.dtype(kind) for kind in (*DTYPES, *FLOATS)])
shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
arrays = dtypes.flatmap(lambda dtype: hnp.arrays(dtype, shapes))
# as they are met in practice: views that are transposed, reversed, with steps
views = st.one_of(arrays, arrays.map(lambda a: a.T), arrays.map(lambda a: a[::-2] if a.ndim else a))
numbers = dtypes.flatmap(hnp.from_dtype)
bits = st.binary(min_size=0, max_size=48)


@st.composite
def tensors(draw: Any) -> torch.Tensor:
    dtype = draw(st.sampled_from(TENSORS))
    raw = torch.tensor(list(draw(bits)), dtype=torch.uint8)
    raw = raw[: len(raw) // 8 * 8]
    tensor = raw.bool() if dtype == torch.bool else raw.view(dtype)
    if len(tensor) and len(tensor) % 4 == 0 and draw(st.booleans()):
        tensor = tensor.view(4, -1).T
    return tensor[0] if tensor.dim() == 1 and len(tensor) and draw(st.booleans()) else tensor


words = st.one_of(st.text(max_size=6), st.sampled_from(["$tensor", "$dict", "$", "", "maxlen", "a.b"]))
scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.integers(-(2**200), 2**200), st.floats(), words)
keys = st.one_of(
    words, st.integers(), st.booleans(), st.none(), st.floats(allow_nan=False), st.tuples(words, st.integers())
)


def containers(trees: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    lists = st.lists(trees, max_size=4)
    return st.one_of(
        lists,
        lists.map(tuple),
        st.builds(deque, lists, maxlen=st.one_of(st.none(), st.integers(0, 5))),
        st.dictionaries(words, trees, max_size=4),
        st.dictionaries(keys, trees, max_size=4),
    )


sets = st.sets(st.one_of(words, st.integers(), st.tuples(words, st.integers())), max_size=5)
long = st.one_of(
    st.lists(st.floats(), min_size=COMPACT - 1, max_size=COMPACT + 1),
    st.lists(st.integers(), min_size=COMPACT - 1, max_size=COMPACT + 1),
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=COMPACT, max_size=COMPACT),
    st.lists(st.one_of(st.integers(0, 1), st.booleans(), st.floats()), min_size=COMPACT, max_size=COMPACT),
)
leaves = st.one_of(scalars, views, numbers, tensors(), sets, long)
trees = st.recursive(leaves, containers, max_leaves=12)


def same(one: Any, other: Any) -> bool:
    """Equal in all types and bits; which NaN a Python float is, nobody can see."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return same(list(one), list(other)) and same(list(one.values()), list(other.values()))
    if isinstance(one, deque) and one.maxlen != other.maxlen:
        return False
    if isinstance(one, list | tuple | deque):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and same(_as_array(one), _as_array(other))
    if isinstance(one, np.ndarray | np.generic):
        return (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())
    if isinstance(one, float):
        return (math.isnan(one) and math.isnan(other)) or (
            one == other and math.copysign(1, one) == math.copysign(1, other)
        )
    return bool(one == other)


def _as_array(tensor: torch.Tensor) -> Any:
    return (tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor).numpy()


def returned(tree: Any) -> Any:
    return decode(*encode(tree))


@given(trees)
@settings(max_examples=150, deadline=None)
def test_a_tree_comes_back_as_it_was(tree: Any) -> None:
    assert same(returned(tree), tree)


@given(trees)
@settings(max_examples=25, deadline=None)
def test_a_tree_is_written_as_json_and_safetensors(tree: Any) -> None:
    structure, arrays = encode(tree)
    json.loads(structure)
    safetensors.numpy.load(arrays)
    assert encode(returned(tree)) == (structure, arrays)


EDGES = {
    "numbers beyond 64 bits": [2**63, -(2**63) - 1, 2**127 - 1, *range(COMPACT)],
    "floats": [math.inf, -math.inf, math.nan, -0.0, 5e-324, 0.1, *(float(i) for i in range(COMPACT))],
    "not only floats": [1, *(float(i) for i in range(COMPACT))],
    "not only integers": [True, *range(COMPACT)],
    "tags": {"$tensor": "0", "$": {"$dict": []}, "a": {"$array": 1}},
    "a tag that is no first key": {"a": 1, "$set": [2]},
    "keys": {1: "a", "1": "b", 1.5: "c", (1, (2, "x")): "d", None: "e", np.int64(3): "f"},
    "order of keys": {"b": 1, "a": 2, 10: 3, 9: 4},
    "sets of several types": {"a", 1, (2, "b"), None, 2.5},
    "a long deque": deque([float(i) for i in range(100)], maxlen=100),
    "a long set": set(range(100)),
    "an empty deque": deque(maxlen=0),
    "text": ["", "$tensor", "ä\n\x00\ud800", '"'],
    "the state of Python's generator": random.Random(0).getstate(),
    "the state of NumPy's generator": np.random.default_rng(0).bit_generator.state,
    "no rows": [np.zeros((0, 3), np.float32), torch.zeros(0, 2)],
    "no dimensions": [np.array(1.5, np.float32), torch.tensor(3), np.float32(0.1), np.bool_(True)],
    "not contiguous": [np.arange(12.0).reshape(3, 4).T[::2], torch.arange(12).view(3, 4).t()[::2]],
    "shared among others": [torch.arange(6.0)[2:4]],
    "bfloat16": torch.tensor([1.5, -0.0, math.nan, 3e38], dtype=torch.bfloat16),
}


@pytest.mark.parametrize("name", EDGES)
def test_the_edges(name: str) -> None:
    assert same(returned(EDGES[name]), EDGES[name])


def test_what_comes_back_is_writable_and_ones_own() -> None:
    array = np.zeros(3)
    found = returned([array, array, torch.zeros(3)])
    found[0][0] = 1
    found[2][0] = 1
    assert (array[0], found[1][0]) == (0, 0)


def test_a_parameter_comes_back_as_a_tensor_without_gradient() -> None:
    found = returned(nn.Parameter(torch.ones(2)))
    assert type(found) is torch.Tensor
    assert not found.requires_grad


Point = namedtuple("Point", "x y")


class Text(str):
    """Text that is more than text."""


NOT_PLAIN = {
    "object": object(),
    "bytes": b"x",
    "complex": 1j,
    "function": print,
    "array of objects": np.array([None]),
    "array of text": np.array(["a"]),
    "array of complex numbers": np.zeros(2, complex),
    "array of dates": np.zeros(2, "datetime64[s]"),
    "array of another byte order": np.zeros(2, np.dtype(np.float64).newbyteorder(">")),
    "array of long doubles": np.zeros(2, np.longdouble),
    "long double": np.longdouble(1),
    "masked array": np.ma.masked_array([1.0, 2.0], [True, False]),
    "complex tensor": torch.zeros(2, dtype=torch.complex64),
    "sparse tensor": torch.eye(2).to_sparse(),
    "named tuple": Point(1, 2),
    "frozen set": frozenset([1]),
    "kind of text": Text("a"),
    "generator": np.random.default_rng(0),
}


@pytest.mark.parametrize("name", NOT_PLAIN)
def test_what_is_not_plain_is_refused_with_its_path(name: str) -> None:
    with pytest.raises(TypeError, match=r"^a\.b\[1\]\.3: .*cannot be kept in a checkpoint"):
        encode({"a": {"b": (0, {3: NOT_PLAIN[name]})}})
    with pytest.raises(TypeError, match=r"^the tree: "):
        encode(NOT_PLAIN[name])


@pytest.mark.parametrize("key", [b"x", Point(1, 2), frozenset([1])])
def test_keys_are_plain_too(key: Any) -> None:
    with pytest.raises(TypeError, match=r"a \(a key\)"):
        encode({"a": {key: 1}})
