"""Losses and their gradients by hand, for `agents.fast_ppo`; all arrays are (batch, ...) and of one floating type.

PPO's loss for one minibatch, as Stable-Baselines3 has it (Schulman et al. 2017, equation 7):

    L = -mean min(r A, clip(r, 1 - c, 1 + c) A) - k_e mean H + k_v mean (R - v)^2,   r = exp(log pi(a) - log pi_old(a))

Where r is in range, or r A is the smaller of the two, dL/d log pi(a) = -r A / batch; elsewhere it is 0. From there

    Gaussian       d log pi/d mean = (a - mean) / var    d log pi/d log_std = (a - mean)^2 / var - 1    dH/d log_std = 1
    categorical    d log pi/d logit_j = [a = j] - p_j    dH/d logit_j = -p_j (log p_j + H)
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from plasticity.kernels import compiled

HALF_LOG_2_PI = 0.5 * math.log(2 * math.pi)
LOSS, CLIPPED, KL, ENTROPY = range(4)  # of `numbers`: means over the minibatch


@compiled
def normalized(advantages: Any, out: Any) -> None:
    """Advantages less their mean, divided by their standard deviation (of the sample) + 1e-8."""
    n = len(advantages)
    mean = 0.0
    for i in range(n):
        mean += advantages[i]
    mean /= n
    square = 0.0
    for i in range(n):
        square += (advantages[i] - mean) ** 2
    scale = 1.0 / (math.sqrt(square / (n - 1)) + 1e-8)
    for i in range(n):
        out[i] = (advantages[i] - mean) * scale


@compiled
def _surrogate(log_prob: float, old: float, advantage: float, clip: float, numbers: Any) -> float:
    """Adds one row to `numbers` and returns dL/d log pi of it, times the batch's size."""
    log_ratio = log_prob - old
    ratio = math.exp(log_ratio)
    bounded = min(max(ratio, 1.0 - clip), 1.0 + clip)
    numbers[LOSS] -= min(ratio * advantage, bounded * advantage)
    numbers[CLIPPED] += abs(ratio - 1.0) > clip
    numbers[KL] += (ratio - 1.0) - log_ratio
    outside = ratio < 1.0 - clip or ratio > 1.0 + clip  # NaN is not, and so is passed on
    return 0.0 if outside and not ratio * advantage < bounded * advantage else -ratio * advantage


@compiled
def gaussian(
    mean: Any, log_std: Any, actions: Any, old: Any, advantages: Any, clip: float, entropy: float, numbers: Any,
    to_mean: Any, to_log_std: Any,
) -> None:  # fmt: skip
    """A diagonal Gaussian's part of the loss. mean, actions: (batch, actions); log_std: (actions,).

    entropy: its coefficient k_e. Writes dL/d mean, dL/d log_std and the four numbers.
    """
    rows, size = mean.shape
    numbers[:] = 0.0
    to_log_std[:] = 0.0
    inverse, constant = np.empty(size), 0.0
    for k in range(size):
        inverse[k] = math.exp(-2.0 * log_std[k])
        constant += log_std[k] + HALF_LOG_2_PI
    sums = np.zeros(size)
    for i in range(rows):
        log_prob = -constant
        for k in range(size):
            log_prob -= 0.5 * (actions[i, k] - mean[i, k]) ** 2 * inverse[k]
        slope = _surrogate(log_prob, old[i], advantages[i], clip, numbers) / rows
        for k in range(size):
            apart = (actions[i, k] - mean[i, k]) * inverse[k]
            to_mean[i, k] = slope * apart
            sums[k] += slope * (apart * (actions[i, k] - mean[i, k]) - 1.0)
    for k in range(size):
        to_log_std[k] = sums[k] - entropy
    numbers /= rows
    numbers[ENTROPY] = -(constant + 0.5 * size)


@compiled
def categorical(
    logits: Any, actions: Any, old: Any, advantages: Any, clip: float, entropy: float, numbers: Any, to_logits: Any
) -> None:
    """The same for one discrete action. logits: (batch, choices); actions: (batch, 1), whole numbers."""
    rows, size = logits.shape
    numbers[:] = 0.0
    p, log_p = np.empty(size), np.empty(size)
    for i in range(rows):
        highest = logits[i, 0]
        for j in range(size):
            highest = max(highest, logits[i, j])
        total = 0.0
        for j in range(size):
            total += math.exp(logits[i, j] - highest)
        total = math.log(total)
        own = 0.0
        for j in range(size):
            log_p[j] = logits[i, j] - highest - total
            p[j] = math.exp(log_p[j])
            own -= p[j] * log_p[j]
        chosen = int(actions[i, 0])
        slope = _surrogate(log_p[chosen], old[i], advantages[i], clip, numbers)
        numbers[ENTROPY] -= own
        for j in range(size):
            to_logits[i, j] = (
                (slope if j == chosen else 0.0) - slope * p[j] + entropy * p[j] * (log_p[j] + own)
            ) / rows
    numbers /= rows


@compiled
def squared_error(values: Any, old: Any, returns: Any, clip: float, coefficient: float, to_values: Any) -> float:
    """mean (R - v)^2, where v may move from `old` by at most `clip` (or freely: infinity); writes k_v dL/dv."""
    rows, loss = len(values), 0.0
    for i in range(rows):
        moved = values[i, 0] - old[i]
        bounded = min(max(moved, -clip), clip)
        error = (values[i, 0] if clip == np.inf else old[i] + bounded) - returns[i]
        loss += error * error
        to_values[i, 0] = coefficient * 2.0 * error / rows if not abs(moved) > clip else 0.0  # NaN passes
    return loss / rows
