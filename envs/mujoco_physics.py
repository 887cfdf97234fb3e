"""How MuJoCo's physics are really changed: whole arrays of the model, and what they mean.

Three rules, each learnt from a mistake in published benchmarks:
* Contact friction is the element-wise maximum over the two geoms, so all geoms are written: lowering the floor alone
  changes nothing.
* Nominal arrays are copied once and every write starts from them, so changes never compound and restoring is exact.
* The live MjData is never touched: mj_forward or mj_setConst on it would change rewards, or move the robot. (A push is
  the one exception: MuJoCo reads external forces from there, as it reads controls.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
from numpy.typing import NDArray

from envs.target import POSITIVE

FRICTION_RANGE = (1e-5, 5.0)  # MuJoCo's own floor (mjMINMU); and a friction at which Ant sinks 0.44 m into the ground
FRICTION_WARN = 3.0
AT_JOINT = mujoco.mjtTrn.mjTRN_JOINT  # the kind of actuator that drives a joint

Array = NDArray[np.float64]


class ModelArrays:
    """Arrays of the MuJoCo model, as multiples of their nominal values.

    Args:
        name: the target's name.
        arrays: returns views of the model's arrays.
        acts: returns whether they have any effect in this model.
        otherwise: what the error says if they have none.
        low, high: the allowed multiples, both included.
        after: run on the model after each write.
    """

    nominal = 1.0

    def __init__(
        self,
        name: str,
        arrays: Callable[[Any], list[Array]],
        acts: Callable[[Any], bool],
        otherwise: str,
        *,
        low: float = POSITIVE[0],
        high: float = POSITIVE[1],
        after: Callable[[Any], None] = lambda model: None,
    ) -> None:
        self.name, self.low, self.high = name, low, high
        self._arrays, self._acts, self._otherwise, self._after = arrays, acts, otherwise, after

    def validate(self, env: gym.Env[Any, Any]) -> None:
        base: Any = env.unwrapped
        if not self._acts(base.model):
            raise ValueError(f"target '{self.name}' does nothing in {type(base).__name__}: {self._otherwise}")
        self._model = base.model
        self._nominal = [array.copy() for array in self._arrays(base.model)]

    def apply(self, value: float) -> None:
        for array, nominal in zip(self._arrays(self._model), self._nominal, strict=True):
            array[...] = nominal * value
        self._after(self._model)

    def restore(self) -> None:
        self.apply(1.0)  # nominal * 1.0 is nominal, bit for bit


class Friction(ModelArrays):
    """Sliding friction of all geoms, absolute or as a multiple of the nominal one.

    Absolute (`friction`) is the published Slippery Ant task: one number for the whole model, bit-identical to editing
    the friction of the XML's default class. Relative (`friction_scale`) keeps the contrast between feet and floor, and
    is the right one for Hopper (floor 1.0, body 0.9, foot 2.0) and Walker2d (0.7, 0.9, feet 1.9).

    `nominal` is, for the absolute form, the largest nominal friction of any geom: contacts take the maximum, so it is
    what the feet feel. Restoring writes the nominal arrays themselves, which in Hopper no single number could.
    """

    quantity = "friction"  # the two forms write the same arrays, so one environment has room for one
    warn_above: float

    def __init__(self, name: str, *, absolute: bool) -> None:
        super().__init__(name, _friction, _has_frictional_contact, "no two geoms can touch with friction")
        self._absolute = absolute

    def validate(self, env: gym.Env[Any, Any]) -> None:
        super().validate(env)
        largest = max(float(array.max(initial=FRICTION_RANGE[0])) for array in self._nominal)
        unit = 1.0 if self._absolute else largest
        self.nominal = largest if self._absolute else 1.0
        self.low, self.high = FRICTION_RANGE[0] / unit, FRICTION_RANGE[1] / unit
        self.warn_above = FRICTION_WARN / unit

    def apply(self, value: float) -> None:
        if not self._absolute:
            super().apply(value)
            return
        for array in self._arrays(self._model):
            array[...] = value

    def restore(self) -> None:
        super().apply(1.0)


def _friction(model: Any) -> list[Array]:
    # Explicit contact pairs carry two sliding coefficients of their own, which override the geoms'.
    return [model.geom_friction[:, 0], model.pair_friction[:, :2]]


def damping(model: Any) -> list[Array]:
    # By dof address, not joint id. MuJoCo 4 adds the coefficients of nonlinear damping.
    return [model.dof_damping] + ([model.dof_dampingpoly] if hasattr(model, "dof_dampingpoly") else [])


def _has_frictional_contact(model: Any) -> bool:
    """Whether any two geoms can touch with a condim that has friction (MuJoCo's own filters, excludes aside)."""
    if model.npair and (model.pair_dim >= 3).any():
        return True
    mask = (model.geom_contype[:, None] & model.geom_conaffinity[None, :]) != 0
    frictional = np.maximum(model.geom_condim[:, None], model.geom_condim[None, :]) >= 3
    # Bodies welded together never collide, and neither does a body with its parent, unless the parent is the world.
    weld = model.body_weldid[model.geom_bodyid]
    parent = model.body_weldid[model.body_parentid[weld]]
    related = (parent[:, None] == weld[None, :]) & (weld[None, :] != 0)
    apart = (weld[:, None] != weld[None, :]) & ~related & ~related.T
    return bool(((mask | mask.T) & frictional & apart).any())


def has_weight(model: Any) -> bool:
    """Whether gravity pushes on any degree of freedom, in any of a few poses: not in the planar Swimmer or Reacher."""
    data, rng = mujoco.MjData(model), np.random.Generator(np.random.Philox(key=0))
    for _ in range(4):
        data.qpos[:] = model.qpos0 + rng.uniform(-0.3, 0.3, model.nq)
        mujoco.mj_normalizeQuat(model, data.qpos)
        mujoco.mj_forward(model, data)
        if (data.qfrc_bias != 0).any():  # at zero velocity the bias force is gravity alone
            return True
    return False


def set_const(model: Any) -> None:
    """Recompute what the model derives from its masses; on a scratch MjData, since it teleports the one it is given."""
    derived = model.stat.meaninertia == _mean_inertia(model)  # rather than set by hand in the XML
    mujoco.mj_setConst(model, mujoco.MjData(model))
    if derived:  # MuJoCo 4 leaves this to the compiler; the constraint solver's tolerance is relative to it
        model.stat.meaninertia = _mean_inertia(model)


def _mean_inertia(model: Any) -> float:
    return float(sum(model.dof_M0.tolist()) / model.nv)  # one by one, as the compiler adds: the same bits


def copy_data(env: Any, source: Any) -> None:
    """Copy a whole MjData into the environment's own, derived quantities and solver warm start included."""
    mujoco.mj_copyData(env.data, env.model, source)
