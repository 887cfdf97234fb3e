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
    "l2_init": Row({"strength": 0.1}, {"strength": 0.0}, random=False),
    "wasserstein": Row({"strength": 0.1}, {"strength": 0.0}, random=False),
    "spectral": Row({"strength": 0.1}, {"strength": 0.0}, random=False),
    "parseval": Row({"strength": 1e-4}, {"strength": 0.0}, random=False),  # times (64 / width)^2
    "weight_clipping": Row({"zeta": 0.9}, {"zeta": 1e9}, random=False),
    "upgd": Row({"sigma": 0.1}, {"sigma": 0.0, "protect": False}),
    "hare_tortoise": Row({"momentum": 0.9, "period": 3}, {"momentum": 0.0, "period": 2}, random=False),
    "crelu": Row({}, None, random=False),
    "fourier": Row({}, None, random=False),
    "layer_norm": Row({}, None, random=False),
    "nap": Row({}, None, random=False),
    "ns": Row({}, None, random=False),
    "plasticity_injection": Row({"period": 3}, {"period": 1000}),
    "churn": Row({"strength": 1.0}, {"strength": 0.0}, random=False),
    "grama": Row({"threshold": 0.9, "period": 3}, {"threshold": 0.0, "period": 2}),  # tanh units always get a gradient
    "self_normalised_resets": Row({"silence": 0.5, "max_threshold": 1}, {"silence": 0.0, "max_threshold": 1}),
    "reset": Row({"layers": 2, "period": 3}, {"layers": 0, "period": 2}),
    "magnitude_pruning": Row(
        {"sparsity": 0.5, "start": 1, "end": 6, "period": 2},
        {"sparsity": 0.0, "start": 1, "end": 6, "period": 2},
        random=False,
    ),
    "rigl": Row({"sparsity": 0.5, "period": 2, "end": 9}, {"sparsity": 0.0, "period": 2, "end": 9}),
    "neuroplastic_expansion": Row(
        {"period": 2, "end": 9, "threshold": 0.9},
        {"initial_sparsity": 0.0, "sparsity": 0.0, "period": 2, "end": 9},
        random=False,
    ),
}
