"""Gradient steps of `agents.fast_ppo` one after the other in compiled code, for as long as nobody has to look at them.

A step by step's own hooks goes through Python six times; in narrow networks that takes a third of it. Here passes,
clipping, optimizer and what methods can hand over (`plasticity.intervention.unattended`) are done in one call, until a
unit is to be replaced, gradients are not finite, or the policy has moved too far: the same work in the same order, to
the last bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from operator import is_
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim import optimizer as torchs

from plasticity import UnitAdam
from plasticity.native import Table, Work, put, table, take_steps

Numbers: TypeAlias = NDArray[np.float64]
Shift: TypeAlias = tuple[int, int]  # the address of a number that is read, and how much it grows at each step
# of native_steps.h
METHODS, METHOD_COUNT, SHIFTS, SHIFT_COUNT, TOLD, TOLD_COUNT, INTO, SQUARES = range(12, 20)
FACTOR, MOST_NORM, DIVERGENCE, MOST_DIVERGENCE, ALONE, STEP_ALONE, ENDING = range(20, 27)
ALL_TAKEN, OPEN, NEEDED = range(3)


def shift(into: Table, place: int, tensor: Tensor) -> Shift:
    """Of the address of a tensor that lies there in a table, to where the next one of its kind follows in memory."""
    return into.ctypes.data + into.itemsize * place, tensor.numel() * tensor.element_size()


class Unattended:
    """Steps of minibatches that have as many rows.

    passes, scale: the two halves of a step up to its gradients, and of their scaling by `factor`. squares: of all
    gradients, two sums. told: arrays of what is told of each step, in a row; divergence: where the policy's is in it.
    shifts: from one minibatch to the next.
    """

    def __init__(
        self,
        passes: tuple[Work, Work],
        scale: tuple[Work, Work],
        squares: Numbers,
        factor: Numbers,
        told: Sequence[Numbers],
        divergence: int,
        shifts: Sequence[Shift],
    ):
        self._held = (passes, scale, told, squares, factor)
        addresses = [array.ctypes.data + 8 * place for array in told for place in range(len(array))]
        self._told, self._shifts = table(addresses), table([number for one in shifts for number in one])
        self._table = table([0] * (ENDING + 1))
        self._address: int = self._table.ctypes.data
        self._into = np.empty((0, len(addresses)))
        t = self._table
        t[0:8] = [number for works in (passes, scale) for work in works for number in work.arguments]
        t[SHIFTS], t[SHIFT_COUNT] = self._shifts.ctypes.data, len(shifts)
        t[TOLD], t[TOLD_COUNT] = self._told.ctypes.data, len(addresses)
        t[SQUARES], t[FACTOR], t[DIVERGENCE] = squares.ctypes.data, factor.ctypes.data, addresses[divergence]

    def begin(self, offered: Offer, most_norm: float, most_divergence: float) -> None:
        """Say what is done in the steps to come. most_divergence: a step of more is not taken, nor any after it."""
        one_thread = torch.get_num_threads() == 1
        t, (first, second) = self._table, offered.works
        t[8:14] = [*first.arguments, *second.arguments, *offered.methods.arguments]
        t[ALONE], t[STEP_ALONE] = one_thread, one_thread if offered.alone is None else offered.alone
        put(t, MOST_NORM, float(most_norm))
        put(t, MOST_DIVERGENCE, float(most_divergence))

    def __call__(self, times: int) -> tuple[list[tuple[float, ...]], int]:
        """Take at most so many steps; what is told of each, and why there are no more.

        OPEN: the last of them was not taken. NEEDED: a method is.
        """
        if len(self._into) < times:
            self._into = np.empty((times, len(self._told)))
            self._table[INTO] = self._into.ctypes.data
        assert take_steps is not None
        steps = take_steps(self._address, times)
        return [*map(tuple, self._into[:steps].tolist())], int(self._table[ENDING])


class Offer(NamedTuple):
    """What an optimizer and those who watch its steps hand over: its two halves of a step, and their tasks.

    alone: whether one thread is to do both halves; None: where torch has no more. watching: whose hooks they are.
    """

    works: tuple[Work, Work]
    alone: bool | None
    methods: Work
    tables: list[Table]  # of the methods' tasks
    hooks: list[Any]
    watching: list[Any]

    def attend(self, optimizer: UnitAdam, steps: int) -> None:
        """Tell all of them that so many steps, at least one, have been taken."""
        optimizer.attend()
        for one in self.watching:
            one.attend(steps)


def offer(optimizer: UnitAdam, before: Offer | None = None) -> Offer | None:
    """None where hooks have to be called. before: the latest one, of which most may still hold."""
    own: Any = optimizer
    if type(optimizer) is not UnitAdam or "step" in vars(optimizer) or any(_of_all_optimizers()):
        return None
    hooks = [*own._optimizer_step_pre_hooks.values(), *own._optimizer_step_post_hooks.values()]
    is_as_before = before is not None and len(hooks) == len(before.hooks) and all(map(is_, hooks, before.hooks))
    watching = before.watching if before is not None and is_as_before else watchers(hooks)
    if watching is None:
        return None
    tasks: list[tuple[Any, Table]] = []
    for one in watching:
        if (found := one.unattended()) is None:
            return None
        tasks += found
    if (work := optimizer.unattended()) is None:
        return None
    tables = [table for _, table in tasks]
    is_as_before = before is not None and len(tables) == len(before.tables) and all(map(is_, tables, before.tables))
    methods = before.methods if before is not None and is_as_before else Work(*tasks)
    return Offer(*work, methods, tables, hooks, watching)


def watchers(hooks: Iterable[Any]) -> list[Any] | None:
    """Whose hooks they are, each once and in order; None where any of them has to be called."""
    owners = {id(owner): owner for owner in (getattr(hook, "__self__", None) for hook in hooks)}
    return [*owners.values()] if all(hasattr(owner, "unattended") for owner in owners.values()) else None


def _of_all_optimizers() -> Iterator[Any]:
    """Hooks around the steps of all there are."""
    for when in ("pre", "post"):
        yield getattr(torchs, f"_global_optimizer_{when}_hooks", None)
