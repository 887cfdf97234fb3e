"""PPO's loss and its gradients by hand, for `agents.fast_ppo`; the arithmetic is in plasticity/native.h.

For one minibatch, as Stable-Baselines3 has it (Schulman et al. 2017, equation 7):

    L = -mean min(r A, clip(r, 1 - c, 1 + c) A) - k_e mean H + k_v mean (R - v)^2,   r = exp(log pi(a) - log pi_old(a))

Where r is in range, or r A is the smaller of the two, dL/d log pi(a) = -r A / batch; elsewhere it is 0. From there

    Gaussian       d log pi/d mean = (a - mean) / var    d log pi/d log_std = (a - mean)^2 / var - 1    dH/d log_std = 1
    categorical    d log pi/d logit_j = [a = j] - p_j    dH/d logit_j = -p_j (log p_j + H)

Sums are in double precision. All tensors are dense, on the CPU and of one floating type.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from agents.fast_steps import Shift, shift
from plasticity.native import NATIVE, Work, addresses_and_sizes, put, table, together

HALF_LOG_2_PI = 0.5 * math.log(2 * math.pi)


class Numbers(NamedTuple):
    """Means over a minibatch: the clipped loss, the share of clipped ratios, the approximate KL divergence (John
    Schulman's (r - 1) - log r), and minus the entropy."""

    loss: float
    clipped: float
    kl: float
    entropy: float


class PolicyLoss:
    """A policy's part of the loss of a minibatch, as a task; `prepare` it, and read `numbers` (or `told`, the array of
    them) when it is done.

    outputs: the means of a diagonal Gaussian, or the logits of one discrete action, (batch, size), which an earlier
    task writes; to_outputs: room for dL/d of them. log_std, to_log_std: (size,), of a Gaussian.
    """

    def __init__(self, outputs: Tensor, to_outputs: Tensor, log_std: Tensor | None, to_log_std: Tensor | None):
        rows, size = outputs.shape
        self._native = native = NATIVE[outputs.dtype]
        self.told, self._scratch = np.empty(4), np.empty(2 * size)
        self._normalized = torch.empty(rows, dtype=outputs.dtype)
        self._held = (outputs, to_outputs, log_std, to_log_std)
        stds = [0 if tensor is None else tensor.data_ptr() for tensor in (log_std, to_log_std)]
        ends = self.told.ctypes.data, self._scratch.ctypes.data
        self._table = table(
            [outputs.data_ptr(), stds[0], 0, 0, 0, rows, size, 0.0, 0.0, to_outputs.data_ptr(), stds[1], *ends]
        )
        self._norm = table([0, rows, self._normalized.data_ptr()])
        self.normalize = (native.normalized, self._norm)
        self.task = (native.categorical if log_std is None else native.gaussian, self._table)

    def settings(self, clip: float, entropy: float) -> None:
        """c and k_e from now on."""
        put(self._table, 7, float(clip))
        put(self._table, 8, float(entropy))

    def prepare(self, actions: Tensor, old: Tensor, advantages: Tensor, normalize: bool) -> None:
        """actions: (batch, size) or int64 (batch, 1); old: log pi_old, (batch,); advantages: (batch,).

        normalize: `normalize` is done first.
        """
        into, source = self._table, self._normalized if normalize else advantages
        into[2], into[3], into[4] = actions.data_ptr(), old.data_ptr(), source.data_ptr()
        self._norm[0] = advantages.data_ptr()

    def shifts(self, actions: Tensor, old: Tensor, advantages: Tensor, normalize: bool) -> list[Shift]:
        """From a minibatch, as `prepare` was given it, to the one that follows in memory."""
        read = shift(self._norm, 0, advantages) if normalize else shift(self._table, 4, advantages)
        return [shift(self._table, 2, actions), shift(self._table, 3, old), read]

    @property
    def numbers(self) -> Numbers:
        """Of the latest minibatch."""
        return Numbers(*self.told.tolist())


class ValueLoss:
    """k_v mean (R - v)^2 of a minibatch as a task. values: (batch, 1), written by an earlier task; to_values: room."""

    def __init__(self, values: Tensor, to_values: Tensor):
        self._held = values, to_values
        self.told = np.empty(1)
        ends = to_values.data_ptr(), self.told.ctypes.data
        self._table = table([values.data_ptr(), 0, 0, len(values), 0.0, 0.0, *ends])
        self.task = NATIVE[values.dtype].squared_error, self._table

    def settings(self, clip: float, coefficient: float) -> None:
        """From now on values move by at most `clip` (infinity: freely), and k_v is `coefficient`."""
        put(self._table, 4, float(clip))
        put(self._table, 5, float(coefficient))

    def prepare(self, old: Tensor, returns: Tensor) -> None:
        """old, returns: (batch,)."""
        self._table[1], self._table[2] = old.data_ptr(), returns.data_ptr()

    def shifts(self, old: Tensor, returns: Tensor) -> list[Shift]:
        """From a minibatch to the one that follows in memory."""
        return [shift(self._table, 1, old), shift(self._table, 2, returns)]

    @property
    def loss(self) -> float:
        """Mean (R - v)^2 of the latest minibatch."""
        return float(self.told[0])


class Clip:
    """Scale gradients, in place, so that their joint norm is at most a limit: `torch.nn.utils.clip_grad_norm_`.

    shares: the gradients that each of two threads works on. measure: for each a task that comes first, and writes to
    `squares`; scale: for each its part of scaling by `factor`.
    """

    def __init__(self, shares: tuple[Sequence[Tensor], Sequence[Tensor]]):
        native = NATIVE[shares[0][0].dtype]
        self._held, self.squares, self.factor = shares, np.empty(2), np.empty(1)
        tables = [addresses_and_sizes(share) for share in shares]
        self._tables = tables
        first, second = ((own.ctypes.data, len(own)) for own in tables)
        place = self.squares.ctypes.data
        self.measure = [(native.squares, table([*first, place])), (native.squares, table([*second, place + 8]))]
        scale = [Work((native.scale, table([*own, self.factor.ctypes.data]))) for own in (first, second)]
        self.scale = (scale[0], scale[1])

    def __call__(self, max_norm: float) -> float:
        """After `measure`; the sum of the squares that there were."""
        squares = sum(self.squares.tolist())
        factor = max_norm / (math.sqrt(squares) + 1e-6)
        if not factor >= 1:  # NaN goes on, as in torch
            self.factor[0] = factor
            together(*self.scale)
        return squares
