"""One row for each method of the registry: what the property tests run it with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """active: settings under which it acts within a few steps of a small tanh network.

    identity: settings under which it must change nothing at all; None for a choice of architecture or optimizer.
    random: does it draw random numbers?
    """

    active: dict[str, Any]
    identity: dict[str, Any] | None
    random: bool = True


ROWS = {
    "cbp": Row({"replacement_rate": 0.05, "maturity": 2}, {"replacement_rate": 0.0}),
    "redo": Row({"threshold": 0.9, "period": 3}, {"threshold": 0.0, "period": 2}),  # tanh units are never exactly 0
    "l2": Row({"strength": 0.1}, {"strength": 0.0}, random=False),
    "shrink_and_perturb": Row(
        {"shrink": 0.9, "perturb": 0.1, "period": 3}, {"shrink": 1.0, "perturb": 0.0, "period": 2}
    ),
}
