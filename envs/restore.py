"""A captured state put back into an environment built the same way; see capture.py for what the tree is.

What exists is filled in place wherever its type, and an array's shape, are those of the state: whoever else holds it
sees the state too. Nothing is looked up by name but classes of the packages that the environment's own layers are from,
which are loaded already, and no code of theirs is run to make an object.
"""

from __future__ import annotations

import random
import sys
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from envs.capture import place, plain
from envs.kinds import attributes, class_name, constant, is_drawing, is_open, layers_of, spaces_in

ABSENT: Any = object()
BIT_GENERATORS = ("PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64")
DICTS = {class_name(kind()): kind for kind in (dict, OrderedDict, Counter)}


class Unrestorable(Exception):
    """A state for which there is no place in this environment."""


class Restore:
    """One restoration of one environment.

    Args:
        models: as for `Capture`.

    Attributes:
        missing: what could not be put back.
    """

    def __init__(self, models: Any) -> None:
        self.missing: list[str] = []
        self._models = models
        self._made: dict[int, Any] = {}  # by its number in the tree
        self._used: dict[int, Any] = {}  # by id: filled already, or not ours to write to
        self._packages: set[str] = set()
        self._late: list[Callable[[], None]] = []
        self._kinds: dict[str, Callable[[Any, Any, str], Any]] = {
            "same": self._same,
            "constant": self._constant,
            "enum": lambda node, live, path: self._class(node, live, path)[node["name"]],
            "scalar": lambda node, live, path: _array_of(node["value"])[()],
            "bytes": lambda node, live, path: node["value"].tobytes(),
            "bytearray": lambda node, live, path: bytearray(node["value"].tobytes()),
            "list": self._list,
            "tuple": self._tuple,
            "set": self._set,
            "frozenset": lambda node, live, path: frozenset(self._parts(node, (), path)),
            "deque": self._deque,
            "dict": self._dict,
            "array": self._array,
            "view": self._view,
            "Generator": self._generator,
            "RandomState": self._random_state,
            "Random": self._python_random,
            "space": self._space,
            "environment": self._environment,
            "own": self._own,
            "object": self._object,
            "MjModel": self._mujoco,
            "MjData": self._mujoco,
        }

    def chain(self, nodes: list[Any], env: gym.Env[Any, Any]) -> None:
        """Put back the states of an environment's layers, the outermost first.

        Raises:
            ValueError: the state is of other layers.
        """
        layers = list(layers_of(env))
        ours, theirs = [class_name(layer) for layer in layers], [node["class"] for node in nodes]
        if ours != theirs:
            raise ValueError(f"the state is of the environment {' > '.join(theirs)}; this one is {' > '.join(ours)}")
        for node, layer in zip(nodes, layers, strict=True):
            self._made[node["id"]] = layer
            self._packages.add(type(layer).__module__.partition(".")[0])
            self._protect(layer)
        for node, layer in zip(nodes, layers, strict=True):
            if node.get("own") is not None:
                layer.load_state_dict(plain(node["own"]))  # type: ignore[attr-defined]
            self._fill(node, layer, type(layer).__name__, delete="own" not in node)

    def finish(self) -> None:
        """Put back the simulations, once every layer has had its say."""
        for late in self._late:
            late()

    def _protect(self, layer: gym.Env[Any, Any]) -> None:
        """Never write into what a class, a module or a space shares with others, though an attribute may hold it."""
        holders: list[Mapping[str, Any]] = [vars(base) for base in type(layer).__mro__]
        module = sys.modules.get(type(layer).__module__)
        holders += [] if module is None else [vars(module)]
        holders += [vars(value) for value in vars(layer).values() if isinstance(value, gym.Space)]
        for holder in holders:
            self._used |= {id(value): value for value in holder.values() if isinstance(value, np.ndarray | list | dict)}

    def _fill(self, node: Mapping[str, Any], owner: Any, path: str, *, delete: bool) -> None:
        found = attributes(owner)
        for name, part in node["attributes"].items():
            live = found.get(name, ABSENT)
            if part is None and is_drawing(live):
                continue
            try:
                value = self.value(part, live, f"{path}.{name}")
            except Unrestorable as error:
                self.missing.append(str(error))
                continue
            if value is not live:
                object.__setattr__(owner, name, value)
        known = {*node["attributes"], *node["left"]}
        for name, live in found.items() if delete else ():
            if name not in known and constant(live) is None and not is_drawing(live):
                object.__delattr__(owner, name)

    def value(self, node: Any, live: Any, path: str) -> Any:
        """Return what a node stands for, made of `live`, what is there now, where that fits."""
        return self._kinds[node["kind"]](node, live, path) if isinstance(node, dict) else node

    def _claim(self, live: Any, fits: bool) -> bool:
        """Whether `live` may be filled in place; once at most."""
        if not fits or id(live) in self._used:
            return False
        self._used[id(live)] = live
        return True

    def _same(self, node: Any, live: Any, path: str) -> Any:
        if node["id"] not in self._made:
            raise Unrestorable(f"{path} (part of what is missing)")
        return self._made[node["id"]]

    def _constant(self, node: Any, live: Any, path: str) -> Any:
        if live is ABSENT or (constant(live) or type(live).__name__) != node["text"]:
            raise Unrestorable(f"{path} ({node['text']})")
        return live

    def _class(self, node: Any, live: Any, path: str) -> Any:
        if live is not ABSENT and class_name(live) == node["class"]:
            return type(live)
        module, _, names = node["class"].partition(":")
        found: Any = sys.modules.get(module) if module.partition(".")[0] in self._packages else None
        for name in names.split("."):
            found = vars(found).get(name) if found is not None else None
        if not isinstance(found, type):
            raise Unrestorable(f"{path} ({names})")
        return found

    def _parts(self, node: Any, lives: Any, path: str) -> list[Any]:
        lives = [*lives, *[ABSENT] * (len(node["items"]) - len(lives))]
        return [self.value(item, live, path) for item, live in zip(node["items"], lives, strict=False)]

    def _list(self, node: Any, live: Any, path: str) -> Any:
        made = self._made[node["id"]] = live if self._claim(live, type(live) is list) else []
        made[:] = self._parts(node, live if type(live) is list else (), path)
        return made

    def _tuple(self, node: Any, live: Any, path: str) -> Any:
        kind = self._class(node, live, path) if "class" in node else tuple
        if not issubclass(kind, tuple):
            raise Unrestorable(f"{path} ({node['class']})")
        return tuple.__new__(kind, self._parts(node, live if isinstance(live, tuple) else (), path))

    def _set(self, node: Any, live: Any, path: str) -> Any:
        made = self._made[node["id"]] = live if self._claim(live, type(live) is set) else set()
        parts = self._parts(node, (), path)
        made.clear()
        made.update(parts)
        return made

    def _deque(self, node: Any, live: Any, path: str) -> Any:
        fits = type(live) is deque and live.maxlen == node["maxlen"]
        made = self._made[node["id"]] = live if self._claim(live, fits) else deque(maxlen=node["maxlen"])
        parts = self._parts(node, tuple(live) if type(live) is deque else (), path)
        made.clear()
        made.extend(parts)
        return made

    def _dict(self, node: Any, live: Any, path: str) -> Any:
        ours = self._claim(live, isinstance(live, dict) and class_name(live) == node["class"])
        if not ours and node["class"] not in DICTS:
            raise Unrestorable(f"{path} ({node['class']})")
        made = self._made[node["id"]] = live if ours else DICTS[node["class"]]()
        lives = dict(live) if isinstance(live, dict) else {}
        keys = [self.value(key, ABSENT, path) for key, _ in node["items"]]
        pairs = [
            (key, self.value(item, lives.get(key, ABSENT), path))
            for key, (_, item) in zip(keys, node["items"], strict=True)
        ]
        made.clear()
        made.update(pairs)
        return made

    def _array(self, node: Any, live: Any, path: str) -> Any:
        value = _array_of(node["value"])
        fits = type(live) is np.ndarray and live.shape == value.shape and live.dtype == value.dtype
        if self._claim(live, fits and live.flags.writeable):
            live[...] = value
        else:
            live = np.array(value, order="F" if node["fortran"] else "C")
        self._made[node["id"]] = live
        return live

    def _view(self, node: Any, live: Any, path: str) -> Any:
        under = live.base if type(live) is np.ndarray and type(live.base) is np.ndarray else ABSENT
        base, where = self.value(node["of"], under, path), node["place"]
        if base is not under or live.dtype != base.dtype or place(live, base) != where:
            live = np.ndarray(where["shape"], base.dtype, base, where["offset"], where["strides"])
        self._made[node["id"]] = live
        return live

    def _generator(self, node: Any, live: Any, path: str) -> Any:
        name = node["state"]["bit_generator"]
        if name not in BIT_GENERATORS:
            raise Unrestorable(f"{path} ({name})")
        fits = type(live) is np.random.Generator and type(live.bit_generator).__name__ == name
        if not self._claim(live, fits):
            live = np.random.Generator(getattr(np.random, name)())
        live.bit_generator.state = plain(node["state"])
        self._made[node["id"]] = live
        return live

    def _random_state(self, node: Any, live: Any, path: str) -> Any:
        if not self._claim(live, type(live) is np.random.RandomState):
            live = np.random.RandomState()
        live.set_state(plain(node["state"]))
        self._made[node["id"]] = live
        return live

    def _python_random(self, node: Any, live: Any, path: str) -> Any:
        if not self._claim(live, isinstance(live, random.Random)):
            live = random.Random()
        set_python_state(live, node["state"])
        self._made[node["id"]] = live
        return live

    def _space(self, node: Any, live: Any, path: str) -> Any:
        spaces = list(spaces_in(live)) if isinstance(live, gym.Space) else []
        if len(spaces) != len(node["generators"]):
            raise Unrestorable(f"{path} (a space)")
        for space, generator in zip(spaces, node["generators"], strict=True):
            space._np_random = self.value(generator, space._np_random, path)
        self._made[node["id"]] = live
        return live

    def _environment(self, node: Any, live: Any, path: str) -> Any:
        try:
            self.chain(node["layers"], live)
        except ValueError as error:
            raise Unrestorable(f"{path} ({error})") from None
        return live

    def _own(self, node: Any, live: Any, path: str) -> Any:
        if live is ABSENT or class_name(live) != node["class"]:
            raise Unrestorable(f"{path} ({node['class']})")
        self._made[node["id"]] = live
        live.load_state_dict(plain(node["value"]))
        return live

    def _object(self, node: Any, live: Any, path: str) -> Any:
        kind = self._class(node, live, path)
        if not self._claim(live, type(live) is kind):
            live = object.__new__(kind)
            if not is_open(live):
                raise Unrestorable(f"{path} ({node['class']})")
        self._made[node["id"]] = live
        self._fill(node, live, path, delete=True)
        return live

    def _mujoco(self, node: Any, live: Any, path: str) -> Any:
        if live is ABSENT or class_name(live) != node["class"]:
            raise Unrestorable(f"{path} ({node['kind']})")
        self._made[node["id"]] = live

        def late() -> None:
            if not self._models.load(live, node["value"]):
                self.missing.append(f"{path} ({node['kind']})")

        self._late.append(late)
        return live


def _array_of(value: Any) -> NDArray[Any]:
    if isinstance(value, np.ndarray):
        return value
    return np.frombuffer(value["bytes"].tobytes(), np.dtype(value["dtype"])).reshape(value["shape"])


def set_python_state(generator: Any, state: Mapping[str, Any]) -> None:
    """Put back what `capture.python_state` returned."""
    generator.setstate((state["version"], tuple(state["words"].tolist()), state["gauss"]))
