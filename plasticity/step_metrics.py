"""What one gradient step did: measured on request, around that step."""

from __future__ import annotations

from torch import Tensor

from plasticity.intervention import Intervention
from plasticity.metrics import update_ratio
from plasticity.network import Network


class StepMetrics(Intervention):
    """Measures the next gradient step after `arm()`, and otherwise does nothing.

    Attach it before any method, so that it sees the algorithm's own gradients (in PPO after clipping) and the
    optimizer's own step:
    `update_ratio`, ||step|| / ||W||; `gradient_norm`; `zero_gradient_fraction`, for the weights of each hidden layer.
    """

    def __init__(self) -> None:
        self._armed = False
        self._before: dict[str, Tensor] = {}
        self._numbers: dict[str, float] = {}

    def arm(self) -> None:
        """Measure the next gradient step."""
        self._armed = True

    def before_step(self, network: Network) -> None:
        if not self._armed:
            return
        for layer in network.layers:
            self._before[layer.name] = layer.weight.detach().clone()
            gradient = layer.weight.grad
            if gradient is not None:
                self._numbers[f"{layer.name}/gradient_norm"] = float(gradient.norm())
                self._numbers[f"{layer.name}/zero_gradient_fraction"] = float((gradient == 0).double().mean())

    def after_step(self, network: Network) -> None:
        for layer in network.layers if self._armed else ():
            ratio = update_ratio(self._before.pop(layer.name), layer.weight.detach())
            self._numbers[f"{layer.name}/update_ratio"] = ratio
        self._armed = False

    def telemetry(self) -> dict[str, float]:
        """The numbers of the last measured step; empty before the first."""
        return dict(self._numbers)
