"""What one gradient step did: measured on request, around that step."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from plasticity.intervention import Intervention
from plasticity.metrics import update_ratio
from plasticity.native import Tasks
from plasticity.network import Network


class StepMetrics(Intervention):
    """Measures the next gradient step after `arm()`, and otherwise does nothing.

    Attach it before any method, so that it sees the algorithm's own gradients (in PPO after clipping) and step:
    `update_ratio`, ||step|| / ||W||; `gradient_norm`; `zero_gradient_fraction`. They are for the weights of each hidden
    layer (`<layer>/gradient_norm`) and for the network as a whole, its weights and biases together (`gradient_norm`).
    """

    def __init__(self) -> None:
        self._armed = False
        self._before: dict[int, Tensor] = {}
        self._numbers: dict[str, float] = {}

    def arm(self) -> None:
        """Measure the next gradient step."""
        self._armed = True

    def before_step(self, network: Network) -> None:
        if not self._armed:
            return
        self._numbers = {}
        for name, parameters in _groups(network).items():
            self._before |= {id(p): p.detach().clone() for p in parameters}
            gradients = [p.grad for p in parameters if p.grad is not None]
            if gradients:
                count = sum(gradient.numel() for gradient in gradients)
                zeros = sum(int((gradient == 0).sum()) for gradient in gradients)
                self._numbers[f"{name}gradient_norm"] = float(_joined(gradients).norm())
                self._numbers[f"{name}zero_gradient_fraction"] = zeros / count

    def after_step(self, network: Network) -> None:
        if not self._before:
            return
        for name, parameters in _groups(network).items():
            before, after = ([self._before[id(p)] for p in parameters], [p.detach() for p in parameters])
            self._numbers[f"{name}update_ratio"] = update_ratio(_joined(before), _joined(after))
        self._before.clear()
        self._armed = False

    def unattended(self, network: Network) -> Tasks | None:
        """See `plasticity.intervention.unattended`."""
        return None if self._armed else ()

    def telemetry(self) -> dict[str, float]:
        """The numbers of the last measured step; empty before the first."""
        return dict(self._numbers)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint between two gradient steps must keep: plain numbers."""
        return {"armed": self._armed, "numbers": dict(self._numbers)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self._armed, self._numbers = state["armed"], dict(state["numbers"])


def _groups(network: Network) -> dict[str, list[nn.Parameter]]:
    """What is measured together, by what its metrics are called before their own name."""
    return {f"{layer.name}/": [layer.weight] for layer in network.layers} | {"": network.parameters()}


def _joined(tensors: Iterable[Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])
