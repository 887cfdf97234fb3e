"""A MuJoCo simulation as plain arrays, exact to the last bit.

`mjSTATE_INTEGRATION` alone is what the next step of MuJoCo needs; but environments observe and pay for what was derived
in the last step (Ant's and Humanoid's contact forces), which no call computes anew from it. So every array of MjData of
fixed size is kept. Of a model only what differs from the model as it was built is kept: textures and meshes are large.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

INTEGRATION = mujoco.mjtState.mjSTATE_INTEGRATION
GROUPS = ("opt", "stat")  # numbers of a model that are not its own attributes


class _Built:
    """What a model was when it was first seen."""

    def __init__(self, model: Any) -> None:
        self.model = model  # held, so that its id stays its own
        self.names = _array_names(model)
        self.views = [getattr(model, name) for name in self.names]  # a model's arrays stay where they are
        self.bytes = [view.tobytes() for view in self.views]
        self.numbers = {name: _number(model, name) for name in _number_names(model)}
        # In data that has never been forward, all arrays that grow with the contacts are empty.
        data = mujoco.MjData(model)
        self.of_data = [name for name in _array_names(data) if getattr(data, name).size]


class Models:
    """The models of one environment as they were built, and the states of them and of their data."""

    def __init__(self) -> None:
        self._built: dict[int, _Built] = {}

    def save(self, value: Any) -> dict[str, Any]:
        """Return the state of a model or of data: dicts of arrays and numbers."""
        return self._save_model(value) if isinstance(value, mujoco.MjModel) else self._save_data(value)

    def load(self, value: Any, state: Mapping[str, Any]) -> bool:
        """Put a state back; return whether it is one of such a model."""
        if isinstance(value, mujoco.MjModel):
            return self._load_model(value, state)
        return self._load_data(value, state)

    def _of(self, model: Any) -> _Built:
        address = model._address
        if address not in self._built:
            self._built[address] = _Built(model)
        return self._built[address]

    def _save_model(self, model: Any) -> dict[str, Any]:
        built, arrays = self._of(model), {}
        for name, view, before in zip(built.names, built.views, built.bytes, strict=True):
            if view.tobytes() != before:
                arrays[name] = view.copy()
        now = {name: _number(model, name) for name in built.numbers}
        numbers = {name: value for name, value in now.items() if not _equal(value, built.numbers[name])}
        return {"arrays": arrays, "numbers": numbers}

    def _load_model(self, model: Any, state: Mapping[str, Any]) -> bool:
        built = self._of(model)
        if not _fit(model, state["arrays"]):
            return False
        for name, array, before in zip(built.names, built.views, built.bytes, strict=True):
            value = state["arrays"].get(name)
            bytes_ = before if value is None else value.tobytes()
            if array.tobytes() != bytes_:
                array[...] = np.frombuffer(bytes_, array.dtype).reshape(array.shape)
        for name, value in {**built.numbers, **state["numbers"]}.items():
            group, _, attribute = name.partition(".")
            owner = getattr(model, group)
            if isinstance(value, np.ndarray):
                getattr(owner, attribute)[...] = value
            else:
                setattr(owner, attribute, value)
        return True

    def _save_data(self, data: Any) -> dict[str, Any]:
        state = np.empty(mujoco.mj_stateSize(data.model, INTEGRATION))
        mujoco.mj_getState(data.model, data, state, INTEGRATION)
        arrays = {name: getattr(data, name).copy() for name in self._of(data.model).of_data}
        return {"integration": state, "arrays": arrays}

    def _load_data(self, data: Any, state: Mapping[str, Any]) -> bool:
        size = mujoco.mj_stateSize(data.model, INTEGRATION)
        if state["integration"].shape != (size,) or not _fit(data, state["arrays"]):
            return False
        mujoco.mj_setState(data.model, data, state["integration"], INTEGRATION)
        for name, value in state["arrays"].items():
            getattr(data, name)[...] = value
        return True


def _array_names(value: Any) -> list[str]:
    return [name for name in dir(value) if name[0] != "_" and isinstance(getattr(value, name), np.ndarray)]


def _number_names(model: Any) -> list[str]:
    return [
        f"{group}.{name}"
        for group in GROUPS
        for name in dir(getattr(model, group))
        if name[0] != "_" and isinstance(getattr(getattr(model, group), name), int | float | np.ndarray)
    ]


def _number(model: Any, name: str) -> float | int | NDArray[Any]:
    group, _, attribute = name.partition(".")
    value: float | int | NDArray[Any] = getattr(getattr(model, group), attribute)
    return value.copy() if isinstance(value, np.ndarray) else value


def _equal(one: Any, other: Any) -> bool:
    return (type(one) in (int, float) and one == other) or bool(np.array_equal(one, other, equal_nan=True))


def _fit(owner: Any, arrays: Mapping[str, NDArray[Any]]) -> bool:
    """Whether the owner has arrays of these names, shapes and types."""
    return all(
        isinstance(found := getattr(owner, name, None), np.ndarray)
        and (found.shape, found.dtype) == (array.shape, array.dtype)
        for name, array in arrays.items()
    )
