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
from typing import NamedTuple

import torch
from torch import Tensor

from plasticity.native import NATIVE

HALF_LOG_2_PI = 0.5 * math.log(2 * math.pi)


class Numbers(NamedTuple):
    """Means over a minibatch: the clipped loss, the share of clipped ratios, the approximate KL divergence (John
    Schulman's (r - 1) - log r), and minus the entropy."""

    loss: float
    clipped: float
    kl: float
    entropy: float


def normalized(advantages: Tensor) -> Tensor:
    """(batch,) less its mean, divided by the standard deviation (of the sample) + 1e-8."""
    out = torch.empty_like(advantages)
    NATIVE[out.dtype].normalized(advantages.data_ptr(), len(advantages), out.data_ptr())
    return out


class PolicyLoss:
    """A policy's part of the loss. clip: c; entropy: k_e. size: of actions, or how many choices there are."""

    def __init__(self, size: int, dtype: torch.dtype):
        self._native, self._size = NATIVE[dtype], size
        self._numbers, self._scratch = torch.empty(4, dtype=torch.float64), torch.empty(2 * size, dtype=torch.float64)
        self._written = self._numbers.data_ptr(), self._scratch.data_ptr()

    def gaussian(
        self,
        mean: Tensor,
        log_std: Tensor,
        actions: Tensor,
        old: Tensor,
        advantages: Tensor,
        clip: float,
        entropy: float,
        to_log_std: Tensor,
    ) -> tuple[Tensor, Numbers]:
        """Of a diagonal Gaussian: dL/d mean and the numbers; writes dL/d log_std.

        mean, actions: (batch, actions); log_std: (actions,); old: log pi_old, (batch,); advantages: (batch,).
        """
        to_mean = torch.empty_like(mean)
        given = (tensor.data_ptr() for tensor in (mean, log_std, actions, old, advantages))
        gradients = to_mean.data_ptr(), to_log_std.data_ptr()
        self._native.gaussian(*given, len(mean), self._size, clip, entropy, *gradients, *self._written)
        return to_mean, Numbers(*self._numbers.tolist())

    def categorical(
        self, logits: Tensor, actions: Tensor, old: Tensor, advantages: Tensor, clip: float, entropy: float
    ) -> tuple[Tensor, Numbers]:
        """Of one discrete action: dL/d logits and the numbers. logits: (batch, choices); actions: (batch, 1), int64."""
        to_logits = torch.empty_like(logits)
        given = (tensor.data_ptr() for tensor in (logits, actions, old, advantages))
        self._native.categorical(*given, len(logits), self._size, clip, entropy, to_logits.data_ptr(), *self._written)
        return to_logits, Numbers(*self._numbers.tolist())


def squared_error(
    values: Tensor, old: Tensor, returns: Tensor, clip: float, coefficient: float
) -> tuple[Tensor, float]:
    """k_v dL/dv and mean (R - v)^2. values: (batch, 1), which move from `old` by at most `clip` (infinity: freely)."""
    to_values = torch.empty_like(values)
    given = (tensor.data_ptr() for tensor in (values, old, returns))
    loss = NATIVE[values.dtype].squared_error(*given, len(values), clip, coefficient, to_values.data_ptr())
    return to_values, loss
