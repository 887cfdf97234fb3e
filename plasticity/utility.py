"""How useful a hidden unit is: the seven utilities of continual backpropagation.

Source: Dohare et al., Nature 632:768 (2024), Methods, equations 1 and 2, and the variants of their public code.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from plasticity.layers import HiddenLayer

_SMALLEST = 1e-8  # a unit without incoming weights is useless to adapt, not infinitely useful


@dataclass(frozen=True, eq=False)
class UnitStatistics:
    """What a utility may look at.

    layer: the hidden layer.
    activations: (rows, *replicas, units), this minibatch's; a channel has a row for every position.
    mean_activation: (*replicas, units), the bias-corrected running mean, this minibatch included.
    uniform: draws a tensor of a given shape from U(0, 1), from the method's own stream.
    """

    layer: HiddenLayer
    activations: Tensor
    mean_activation: Tensor
    uniform: Callable[..., Tensor]

    def outgoing(self) -> Tensor:
        """mean |W_out| over all outputs and positions of all readers together, (*replicas, units)."""
        totals, counts = zip(*(reader.magnitude(self.layer.units) for reader in self.layer.readers), strict=True)
        return torch.stack(totals).sum(0) / float(sum(counts))

    def incoming(self) -> Tensor:
        """mean |W_in|, (*replicas, units)."""
        return self.layer.incoming().abs().mean(-1).clamp_min(_SMALLEST)

    def size(self) -> Tensor:
        """mean |h| over the minibatch, (*replicas, units)."""
        return self.activations.abs().mean(0)

    def deviation(self) -> Tensor:
        """mean |h - f| over the minibatch, f the running mean, (*replicas, units)."""
        return (self.activations - self.mean_activation).abs().mean(0)


def weight(s: UnitStatistics) -> Tensor:
    """mean |W_out|."""
    return s.outgoing()


def contribution(s: UnitStatistics) -> Tensor:
    """mean |W_out| * mean |h|: what the published RL runs use."""
    return s.outgoing() * s.size()


def adaptation(s: UnitStatistics) -> Tensor:
    """1 / mean |W_in|: small incoming weights adapt fast."""
    return 1 / s.incoming()


def zero_contribution(s: UnitStatistics) -> Tensor:
    """mean |W_out| * mean |h - f|: what is lost when the unit is replaced and its mean transferred."""
    return s.outgoing() * s.deviation()


def adaptable_contribution(s: UnitStatistics) -> Tensor:
    """zero_contribution / mean |W_in|: the paper's overall utility."""
    return zero_contribution(s) / s.incoming()


def feature_by_input(s: UnitStatistics) -> Tensor:
    """mean |h - f| / mean |W_in|."""
    return s.deviation() / s.incoming()


def random(s: UnitStatistics) -> Tensor:
    """U(0, 1) at every step: a control."""
    return s.uniform(*s.layer.unit_shape).to(s.activations)


UTILITIES: dict[str, Callable[[UnitStatistics], Tensor]] = {
    function.__name__: function
    for function in (
        weight,
        contribution,
        adaptation,
        zero_contribution,
        adaptable_contribution,
        feature_by_input,
        random,
    )
}
