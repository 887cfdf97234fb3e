"""Churn reduction: keep what a network says about other inputs while it learns from these."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from plasticity.intervention import Intervention
from plasticity.network import Network
from plasticity.settings import check, setting


@dataclass(frozen=True)
class ChurnReductionConfig:
    """Settings of `ChurnReduction`.

    strength: lambda in the penalty lambda * mean (f(x) - f_before(x))^2. The published code starts with 100 for
        Gaussian PPO policies and with 50 for Q networks, and then sets lambda again and again so that the penalty is
        0.05 (0.01) of the size of the loss. The loss is not known here: lambda is fixed, its default ours, to be tuned.
    """

    strength: float = setting(10.0, within="[0, inf)")

    def __post_init__(self) -> None:
        check(self)

    def build(self, network: Network, seed: int) -> ChurnReduction:
        """The intervention for one network; raises `ValueError` where heads read other things besides its units."""
        return ChurnReduction(network, **asdict(self))


class ChurnReduction(nn.Module, Intervention):
    """Adds the gradient of lambda * mean (f(x) - f_before(x))^2 to the gradients, at every gradient step.

    f are all outputs of the network (the mean is over rows and outputs), f_before the same function with the weights
    before the latest step, x an earlier minibatch: at step t + 2, what step t's inputs made of the weights that step
    t + 1 found. So step t + 1 trained on other inputs, and how far it moved the outputs on these is what is penalised.
    Only outputs are kept, no second network. Weights and biases of the network get the gradient, normalisation gains do
    not. In PPO it comes after gradient clipping.

    Source: Tang, Obando-Ceron, Castro, Courville & Berseth, "Mitigating plasticity loss in continual reinforcement
    learning by reducing churn", ICML 2025, arXiv 2506.00592 (C-CHAIN), after Tang & Berseth, NeurIPS 2024, arXiv
    2409.04792 (CHAIN). Their PPO agents reduce the churn of the policy only; give this to the networks you choose. For
    discrete actions their penalty is a cross-entropy of action probabilities and for Gaussian ones the squared
    difference of the means; here it is the squared difference of what the heads put out (logits; mean and log standard
    deviation), because a network does not know what its outputs stand for. Their second minibatch is a random one of
    the same rollout or replay buffer; here it is one that was trained on two steps before.
    """

    latest: Tensor
    inputs: Tensor
    outputs: Tensor
    change: Tensor

    def __init__(self, network: Network, strength: float = 10.0):
        super().__init__()
        self.config = ChurnReductionConfig(strength)
        network.heads()  # raises where there is more to the outputs than the inputs
        device = network.layers[0].weight.device
        for name in ("latest", "inputs", "outputs"):  # a batch's size is not known yet: they have no rows
            self.register_buffer(name, torch.zeros(0, device=device))
        self.register_buffer("change", torch.zeros((), device=device))
        self.register_load_state_dict_pre_hook(_take_shapes)  # type: ignore[no-untyped-call]

    def before_step(self, network: Network) -> None:
        if not self.config.strength or network.inputs is None:
            return
        with network.watch():
            if len(self.inputs):
                self._add_gradients(network)
            if len(self.latest):
                self.inputs = self.latest
                self.outputs = _outputs(network, self.inputs)
        self.latest = network.inputs.clone()

    def _add_gradients(self, network: Network) -> None:
        parameters = [p for p in network.parameters() if p.requires_grad and p.grad is not None]
        if not parameters:
            return
        with torch.enable_grad():
            change = (_outputs(network, self.inputs) - self.outputs).square().mean()
        gradients = torch.autograd.grad(change, parameters, allow_unused=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None and parameter.grad is not None:
                parameter.grad.add_(gradient, alpha=self.config.strength)
        self.change.copy_(change.detach())

    def telemetry(self) -> dict[str, float]:
        """`churn_penalty`: mean squared change of the outputs on the earlier minibatch at the latest step."""
        return {"churn_penalty": float(self.change)}


def _outputs(network: Network, inputs: Tensor) -> Tensor:
    """All outputs of the network side by side, (batch, outputs)."""
    return torch.cat([output.flatten(1) for output in network.outputs(inputs)], 1)


def _take_shapes(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Make room for a saved minibatch, whatever its size."""
    for name in ("latest", "inputs", "outputs"):
        if (saved := state_dict.get(prefix + name)) is not None:
            setattr(module, name, torch.zeros_like(saved, device=getattr(module, name).device))
