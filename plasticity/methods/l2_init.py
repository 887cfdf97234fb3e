"""L2-Init (regenerative regularisation): pull all weights towards their first values."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from torch import nn

from plasticity.buffers import Buffers
from plasticity.intervention import Intervention
from plasticity.network import Network
from plasticity.settings import check, setting


@dataclass(frozen=True)
class L2InitConfig:
    """Settings of `L2Init`.

    strength: lambda in the penalty lambda / 2 * sum (theta - theta_0)^2, so the gradient gains
        lambda (theta - theta_0), just as `l2` adds lambda theta. The paper writes the penalty without the half:
        strength is twice the paper's lambda, and the default its 1e-2, the best value across its problems (A.2.5).
    biases: pull biases too, as the paper does.
    """

    strength: float = setting(2e-2, within="[0, inf)")
    biases: bool = setting(True)

    def __post_init__(self) -> None:
        check(self)

    def build(self, network: Network, seed: int) -> L2Init:
        """The intervention for one network; theta_0 is what the network has now."""
        return L2Init(network, **asdict(self))


class L2Init(nn.Module, Intervention):
    """Adds strength * (theta - theta_0) to the gradients, at every gradient step.

    theta_0 are the weights (and biases) of `network` when this was made, so make it before the first step; they are
    saved and loaded with it. In PPO the penalty's gradient comes after gradient clipping. Normalisation gains and free
    log standard deviations are left alone. Units that another method replaces are pulled to their old first weights.

    Source: Kumar, Marklund & Van Roy, "Maintaining plasticity in continual learning via regenerative regularization",
    arXiv 2308.11958, Section 3.
    """

    made_of_first_weights = True

    def __init__(self, network: Network, strength: float = 2e-2, *, biases: bool = True):
        super().__init__()
        self.config = L2InitConfig(strength, biases)
        self.initial = Buffers(network.parameters(biases=biases))

    def before_step(self, network: Network) -> None:
        if not self.config.strength:
            return
        for parameter, initial in zip(network.parameters(biases=self.config.biases), self.initial, strict=True):
            if parameter.grad is not None:
                parameter.grad.add_(parameter - initial, alpha=self.config.strength)
