"""The state of an environment and its wrappers as a plain tree; restore.py puts it back.

The tree has None, bool, int, float, str, NumPy arrays and numbers, lists and dicts with string keys, and nothing else:
it can be written to a file without pickle. Everything else is a dict with a `kind`. What is met twice is written once,
with a number by which the second place refers to it: lists and arrays that two attributes share are shared again, and
views of an array are views of it again.

Of each layer, from the outermost wrapper to the environment itself, the state is, in this order:
* what its class says: `state_dict() -> dict` of plain values, and `load_state_dict(state)`. The environment's random
  generator `np_random` is seen to besides.
* otherwise its attributes: plain values, arrays, random generators, containers, MuJoCo's model and data, environments
  within it, and objects whose classes are written in Python, by their attributes. Classes, functions, modules, specs
  and what only draws the environment are constants. Of spaces only the random generator is taken.
What is neither (a body of Box2D, an iterator, a socket) is named in `missing`.
"""

from __future__ import annotations

import enum
import random
import sys
from collections import deque
from collections.abc import Collection, Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from envs.kinds import attributes, class_name, constant, has_protocol, is_drawing, is_open, layers_of, spaces_in

SCALARS = (type(None), bool, int, float, str)
_SCALARS = frozenset(SCALARS)
OF_GYMNASIUM = ("_np_random", "_np_random_seed")  # captured whatever an environment says of itself


class Uncapturable(Exception):
    """Something that is no plain value and cannot be made of any."""


class _Drawing(Exception):
    """Something that only draws the environment."""


class Capture:
    """One capture of one environment.

    Args:
        models: a `envs.mujoco_snapshot.Models` that knows the MuJoCo models as they were built, or None: no MuJoCo.
        leave: attributes of layers that are not captured: records that have no effect.
        ask: whether classes that say what their state is are asked; False, before a reset, takes their attributes.

    Attributes:
        missing: what could not be captured, such as `LunarLander.lander (b2Body)`.
    """

    def __init__(self, models: Any, leave: Collection[str] = (), *, ask: bool = True) -> None:
        self.missing: list[str] = []
        self._models, self._leave, self._ask = models, frozenset(leave), ask
        self._numbers: dict[int, int] = {}
        self._held: list[Any] = []  # so that no id is given away while it stands for something
        self._kinds: dict[type, Any] = {
            list: self._items,
            tuple: self._tuple,
            set: self._items,
            frozenset: self._items,
            deque: self._items,
            np.ndarray: self._array,
            np.random.Generator: self._generator,
            np.random.RandomState: self._generator,
        }

    def chain(self, env: gym.Env[Any, Any]) -> list[Any]:
        """Return the states of an environment's layers, the outermost first."""
        layers = list(layers_of(env))
        for layer in layers:
            self._number(layer)
        return [self._layer(layer) for layer in layers]

    def _layer(self, layer: gym.Env[Any, Any]) -> dict[str, Any]:
        name = type(layer).__name__
        alone = self._leave | ({"env"} if isinstance(layer, gym.Wrapper) else set())
        found = {key: value for key, value in vars(layer).items() if key not in alone}
        node = {"class": class_name(layer), "id": self._numbers[id(layer)]}
        if self._ask and has_protocol(layer):
            try:
                node["own"] = plain(layer.state_dict())  # type: ignore[attr-defined]
            except Uncapturable as error:
                node["own"] = None
                self.missing.append(f"{name}.state_dict(){error}")
            found = {key: found[key] for key in OF_GYMNASIUM if key in found}
        return node | self._attributes(found, name, alone)

    def _attributes(self, found: Mapping[str, Any], path: str, alone: Collection[str] = ()) -> dict[str, Any]:
        """Return the states of attributes, and the names of those that are left as they are."""
        nodes, left = {}, sorted(alone)
        for name, value in found.items():
            try:
                nodes[name] = self.value(value, f"{path}.{name}")
            except _Drawing:
                left.append(name)
            except Uncapturable as error:
                left.append(name)
                if str(error) not in self.missing:
                    self.missing.append(str(error))
        return {"attributes": nodes, "left": left}

    def value(self, value: Any, path: str) -> Any:
        """Return the state of any value; path: where it is, for `missing`."""
        kind = type(value)
        if kind in SCALARS:
            return value
        if id(value) in self._numbers:
            return {"kind": "same", "id": self._numbers[id(value)]}
        if kind in self._kinds:
            return self._kinds[kind](value, path)
        if isinstance(value, np.generic):
            return value if _is_number(value.dtype) else {"kind": "scalar", "value": stored(np.asarray(value))}
        if isinstance(value, enum.Enum):
            return {"kind": "enum", "class": class_name(value), "name": value.name}
        if isinstance(value, bytes | bytearray):
            return {"kind": kind.__name__, "value": np.frombuffer(bytes(value), np.uint8)}
        if (text := constant(value)) is not None:
            return {"kind": "constant", "text": text}
        return self._object(value, path)

    def _object(self, value: Any, path: str) -> Any:
        if isinstance(value, gym.Space):
            spaces = [self.value(space._np_random, path) for space in spaces_in(value)]
            return {"kind": "space", "id": self._number(value), "generators": spaces}
        if isinstance(value, gym.Env):
            return {"kind": "environment", "layers": self.chain(value)}
        if isinstance(value, random.Random):
            return self._python_random(value, path)
        if isinstance(value, dict):
            return self._dict(value, path)
        if isinstance(value, tuple):
            return self._tuple(value, path)
        if is_drawing(value):
            raise _Drawing
        node = {"id": self._number(value), "class": class_name(value)}
        if self._ask and has_protocol(value):
            return node | {"kind": "own", "value": plain(value.state_dict(), f"{path}.state_dict()")}
        if (mujoco := sys.modules.get("mujoco")) is not None and isinstance(value, mujoco.MjModel | mujoco.MjData):
            return node | {"kind": type(value).__name__, "value": self._models.save(value)}
        if not is_open(value):
            raise Uncapturable(f"{path} ({type(value).__name__})")
        return node | {"kind": "object"} | self._attributes(attributes(value), path)

    def _number(self, value: Any) -> int:
        self._held.append(value)
        return self._numbers.setdefault(id(value), len(self._numbers))

    def _items(self, value: Any, path: str) -> dict[str, Any]:
        node: dict[str, Any] = {"kind": type(value).__name__, "id": self._number(value)}
        if isinstance(value, deque):
            node["maxlen"] = value.maxlen
        if set(map(type, value)) <= _SCALARS:  # an episode's rewards: a thousand of them, say
            return node | {"items": list(value)}
        return node | {"items": [self.value(item, path) for item in value]}

    def _tuple(self, value: tuple[Any, ...], path: str) -> dict[str, Any]:
        named = {} if type(value) is tuple else {"class": class_name(value)}
        return {"kind": "tuple", **named, "items": [self.value(item, path) for item in value]}

    def _dict(self, value: dict[Any, Any], path: str) -> dict[str, Any]:
        number = self._number(value)
        pairs = [[self.value(key, path), self.value(item, f"{path}[{key!r}]")] for key, item in value.items()]
        return {"kind": "dict", "id": number, "class": class_name(value), "items": pairs}

    def _array(self, value: NDArray[Any], path: str) -> dict[str, Any]:
        if value.dtype.hasobject or value.dtype.names is not None:
            raise Uncapturable(f"{path} (array of {value.dtype})")
        node: dict[str, Any] = {"id": self._number(value)}
        base = value.base
        if type(base) is np.ndarray and base.flags.c_contiguous and base.dtype == value.dtype:
            return node | {"kind": "view", "of": self.value(base, path), "place": place(value, base)}
        fortran = value.flags.f_contiguous and not value.flags.c_contiguous
        return node | {"kind": "array", "value": stored(value), "fortran": fortran}

    def _generator(self, value: Any, path: str) -> dict[str, Any]:
        """Of NumPy's generators, new and old."""
        old = isinstance(value, np.random.RandomState)
        state = value.get_state(legacy=False) if old else value.bit_generator.state
        return {"kind": type(value).__name__, "id": self._number(value), "state": plain(state, path)}

    def _python_random(self, value: random.Random, path: str) -> dict[str, Any]:
        try:
            state = python_state(value)
        except NotImplementedError:  # the operating system's randomness, which has no state
            return {"kind": "constant", "text": type(value).__name__}
        return {"kind": "Random", "id": self._number(value), "state": state}


def place(view: NDArray[Any], base: NDArray[Any]) -> dict[str, Any]:
    """Return where in an array's memory a view of it lies; offset and strides in bytes."""
    offset = view.__array_interface__["data"][0] - base.__array_interface__["data"][0]
    return {"offset": offset, "shape": list(view.shape), "strides": list(view.strides)}


def stored(array: NDArray[Any]) -> Any:
    """Return a copy of an array; where its numbers are no plain ones (text, dates, complex), as bytes."""
    if _is_number(array.dtype):
        return np.array(array, order="C")
    return {"dtype": array.dtype.str, "shape": list(array.shape), "bytes": np.frombuffer(array.tobytes(), np.uint8)}


def _is_number(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in "biuf" and dtype.itemsize <= 8 and dtype.isnative


def python_state(generator: Any) -> dict[str, Any]:
    """Return the state of Python's generator (`random.Random`, or the module `random`)."""
    version, words, gauss = generator.getstate()
    return {"version": version, "words": np.array(words, np.uint32), "gauss": gauss}


def plain(value: Any, path: str = "") -> Any:
    """Return a copy of a plain value; raise `Uncapturable` with the path and the type of what is none.

    Torch tensors, deques, sets and tuples, and keys that are numbers or tuples, are plain here: an environment's or a
    user's own state may have them.
    """
    kind = type(value)
    if kind in SCALARS or (isinstance(value, np.generic) and _is_number(value.dtype)):
        return value
    if kind is np.ndarray and _is_number(value.dtype):
        return value.copy()
    if kind in (list, tuple, set):
        return kind(plain(item, f"{path}[{i}]") for i, item in enumerate(value))
    if kind is deque:
        return deque((plain(item, f"{path}[{i}]") for i, item in enumerate(value)), value.maxlen)
    if isinstance(value, Mapping):
        return {_key(key, path): plain(item, f"{path}[{key!r}]") for key, item in value.items()}
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        return value.detach().clone()
    raise Uncapturable(f"{path} ({kind.__name__})")


def _key(key: Any, path: str) -> Any:
    if type(key) in (str, int, float) or (type(key) is tuple and all(type(part) in SCALARS for part in key)):
        return key
    raise Uncapturable(f"{path} (a key that is a {type(key).__name__})")
