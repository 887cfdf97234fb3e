"""SAC's losses and their gradients by hand, for `agents.fast_sac`; the arithmetic is in plasticity/native_sac.h.

The policy is a squashed Gaussian (Haarnoja et al. 2018, appendix C), as Stable-Baselines3 has it: with e ~ N(0, 1),

    s = exp(clip(log_std, -20, 2))     z = mean + s e     a = tanh(z)
    log pi(a) = sum over actions of -((z - mean) / s)^2 / 2 - log s - log(2 pi) / 2 - log(1 - a^2 + 1e-6)

With temperature t, n critics, Q their targets and batch size B, the losses of critics and actor are

    L_c = sum over critics of mean (q - y)^2 / 2     y = r + (1 - done) gamma (min Q(s', a') - t log pi(a'))
    L_a = mean (t log pi(a) - min q(s, a))

so dL_c/dq = (q - y) / B, and dL_a/dq = -1 / B for the critic whose value is the least (the first of equals), 0 for all
others: each row of the batch goes back through one critic only. As e is held, z - mean = s e is not of the mean:

    dL_a/dz = (1 - a^2) (dL_a/da + (t / B) 2 a / (1 - a^2 + 1e-6))     dL_a/d mean = dL_a/dz
    dL_a/d log_std = dL_a/dz s e - t / B where log_std is within its range, 0 elsewhere

Sums are in double precision. All tensors are dense, on the CPU and of one floating type.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.sac.policies import LOG_STD_MAX, LOG_STD_MIN
from torch import Tensor

from plasticity.native import NATIVE, Table, Work, halves, put, table, together


class Squashed:
    """Room for `rows` actions that are drawn from a squashed Gaussian. epsilon: 1e-6 above.

    noise, std, actions: (rows, size); log_prob: (rows,). All are written over by the next `draw` and `task`s.
    """

    def __init__(self, rows: int, size: int, epsilon: float, like: Tensor):
        self._native, self._epsilon = NATIVE[like.dtype], epsilon
        self.noise, self.std, self.actions, self._z, self._room = (like.new_empty(rows, size) for _ in range(5))
        self.log_prob = like.new_empty(rows)

    def draw(self, batches: int = 1) -> None:
        """Draw the noise of so many batches, for each of which SB3 draws numbers anew."""
        for noise in self.noise.chunk(batches):
            noise.normal_()

    def task(self, heads: Sequence[Tensor], first: int = 0) -> tuple[Any, Table]:
        """What works out the actions of some rows, from `first` on. heads: mean and log_std of those, (rows, size)."""
        mean, log_std = heads
        rows, size = mean.shape
        mine = (self.std, self._z, self.actions, self._room, self.log_prob)
        noise, *into = (tensor[first:].data_ptr() for tensor in (self.noise, *mine))
        numbers = float(LOG_STD_MIN), float(LOG_STD_MAX), self._epsilon
        given = mean.data_ptr(), log_std.data_ptr(), noise, rows, size, *numbers
        return self._native.squash_noise, table([*given, *into])

    def slopes(self, log_std: Tensor, to_actions: Tensor, weight: float, into: Sequence[Tensor]) -> None:
        """Write dL/d mean and dL/d log_std of the first rows. log_std: as given; to_actions: dL/da; weight: t / B."""
        given = (t.data_ptr() for t in (log_std, self.std, self.noise, self.actions, self._room, to_actions))
        numbers = to_actions.numel(), weight, LOG_STD_MIN, LOG_STD_MAX
        self._native.squashed_slopes(*given, *numbers, *(t.data_ptr() for t in into))


class CriticsLoss:
    """The losses of a batch of `rows`. targets, values: what each target and critic puts out, (rows, 1).

    slopes: room for dL_c/dq of each critic, (rows, 1).
    chosen: for each critic, first of its row, the rows of the batch whose least value is its own, in order, int64;
    counts: how many these are. Both are of the latest `actor`.
    """

    def __init__(self, targets: Sequence[Tensor], values: Sequence[Tensor], slopes: Sequence[Tensor]):
        self._native, self._rows = NATIVE[values[0].dtype], len(values[0])
        self.slopes = slopes
        self._held = [*targets, *values]  # whose addresses these are
        self._tables = [_addresses(tensors) for tensors in (targets, values, self.slopes)]
        self.chosen = torch.empty(len(values), self._rows, dtype=torch.int64)
        self.counts = torch.empty(len(values), dtype=torch.int64)

    def critics(
        self, rewards: Tensor, dones: Tensor, discounts: Tensor | float, log_prob: Tensor, temperature: float
    ) -> float:
        """L_c; writes `slopes`. rewards, dones, discounts: (rows, 1); log_prob: of the next actions, (rows,)."""
        each, of_all = (discounts.data_ptr(), 0.0) if isinstance(discounts, Tensor) else (None, discounts)
        given = rewards.data_ptr(), dones.data_ptr(), each, log_prob.data_ptr(), self._rows, of_all, temperature
        loss: float = self._native.bellman(*(t.ctypes.data for t in self._tables), len(self.slopes), *given)
        return loss

    def actor(self, log_prob: Tensor, temperature: float) -> float:
        """L_a. log_prob: of the current actions, (rows,)."""
        given = self._tables[1].ctypes.data, len(self.slopes), log_prob.data_ptr(), self._rows, temperature
        loss: float = self._native.actor_loss(*given, self.chosen.data_ptr(), self.counts.data_ptr())
        return loss


class Polyak:
    """Moves target networks towards those they follow: `stable_baselines3.common.utils.polyak_update`."""

    def __init__(self, sources: Sequence[Tensor], targets: Sequence[Tensor]):
        self._held = [*zip(targets, sources, strict=True)]
        rows = [(target.data_ptr(), source.data_ptr(), target.numel()) for target, source in self._held]
        every, polyak = np.array(rows, np.int64), NATIVE[targets[0].dtype].polyak
        self._tables = halves(every, every[:, 2])
        self._tasks = [table([part.ctypes.data, len(part), 0.0]) for part in self._tables]
        self._works = [Work((polyak, task)) for task in self._tasks]

    def __call__(self, tau: float) -> None:
        """Take the share `tau` of what is followed."""
        for task in self._tasks:
            put(task, 2, float(tau))
        together(*self._works)


def _addresses(tensors: Sequence[Tensor]) -> NDArray[np.int64]:
    return np.array([tensor.data_ptr() for tensor in tensors], np.int64)
