"""L2 regularisation: pull all weights towards zero."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from torch import nn

from plasticity.intervention import Intervention
from plasticity.network import Network
from plasticity.settings import check, setting


@dataclass(frozen=True)
class L2Config:
    """Settings of `L2`.

    strength: the weight decay; the published Slippery Ant runs use 1e-3.
    decoupled: subtract learning rate * strength * weight instead of adding strength * weight to the gradient.
    biases: decay biases too, as torch's weight decay does.
    log_std: decay a policy's free log standard deviations too. That pulls them to 0, a standard deviation of 1; the
        reference code does it.
    """

    strength: float = setting(1e-3, within="[0, inf)")
    decoupled: bool = setting(False)
    biases: bool = setting(True)
    log_std: bool = setting(False)

    def __post_init__(self) -> None:
        check(self)

    def build(self, network: Network, seed: int) -> L2:
        """The intervention for one network."""
        return L2(**asdict(self))


class L2(nn.Module, Intervention):
    """Weight decay as a method of its own, equal to the optimizer's `weight_decay` on the parameters it covers.

    Coupled (the default) it adds strength * theta to the gradient, which Adam then rescales; in PPO that comes after
    gradient clipping. Decoupled (Loshchilov & Hutter, ICLR 2019) it multiplies theta by 1 - lr * strength.

    Source: Dohare et al., Nature 632:768 (2024), who use the coupled form of `torch.optim.Adam`.
    """

    def __init__(self, strength: float = 1e-3, *, decoupled: bool = False, biases: bool = True, log_std: bool = False):
        super().__init__()
        self.config = L2Config(strength, decoupled, biases, log_std)

    def before_step(self, network: Network) -> None:
        if not self.config.strength:
            return
        for parameter in network.parameters(biases=self.config.biases, log_std=self.config.log_std):
            if parameter.grad is None:
                continue
            if self.config.decoupled:
                parameter.mul_(1 - network.learning_rate(parameter) * self.config.strength)
            else:
                parameter.grad.add_(parameter, alpha=self.config.strength)
