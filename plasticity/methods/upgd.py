"""UPGD: smaller steps for useful weights, noise for useless ones."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from plasticity.buffers import Buffers
from plasticity.intervention import Intervention, Randomness
from plasticity.network import Network
from plasticity.settings import check, setting


@dataclass(frozen=True)
class UPGDConfig:
    """Settings of `UPGD`; the defaults are those of the published PPO runs.

    sigma: standard deviation of the noise, which the learning rate multiplies.
    decay: of the running mean of utilities, per gradient step (beta).
    protect: scale the optimizer's step by 1 - utility too; otherwise only the noise (the paper's non-protecting UPGD).
    """

    sigma: float = setting(1e-3, within="[0, inf)")
    decay: float = setting(0.999, within="[0, 1)")
    protect: bool = setting(True)

    def __post_init__(self) -> None:
        check(self)

    def build(self, network: Network, seed: int) -> UPGD:
        """The intervention for one network."""
        return UPGD(network, seed=seed, **asdict(self))


class UPGD(nn.Module, Intervention):
    """theta <- theta + (step - lr * noise) * (1 - U), at every gradient step, whatever the optimizer's step is.

    u, a weight's utility, is the running mean of -gradient * theta: by how much the loss would grow, to first order, if
    the weight were 0. U = sigmoid(u / the largest u of the network), both bias-corrected; noise ~ N(0, sigma^2).
    With SGD this is UPGD with global utilities, with Adam it is Adaptive UPGD. A weight of utility 0 has U = 1/2, so
    everything learns at about half its rate: the published PPO code doubles the learning rate. It also shrinks
    weights by 1 - lr * 1e-3, which is `l2` with `decoupled: true`, `strength: 1e-3`, named before this.

    Only weights and biases are touched; normalisation gains and log standard deviations keep the optimizer's step. In
    PPO the gradients are those after clipping. What other methods do to weights before this one's turn counts as part
    of the step: name methods that replace units or clip weights after it.

    Source: Elsayed & Mahmood, "Addressing loss of plasticity and catastrophic forgetting in continual learning", ICLR
    2024, arXiv 2404.00781, and their code. There the largest u is left without bias correction, so that at first U is
    nearly 0 or 1 (by a factor 1 / (1 - decay^t)), and is that of actor and critic together, where here each network
    has its own. If no u is positive, that code would protect the least useful weights; here none with a negative u is.
    """

    def __init__(
        self, network: Network, sigma: float = 1e-3, *, decay: float = 0.999, protect: bool = True, seed: int = 0
    ):
        super().__init__()
        self.config = UPGDConfig(sigma, decay, protect)
        self.random = Randomness(seed, network.name, "upgd")
        self.utilities = Buffers(torch.zeros_like(parameter) for parameter in network.parameters())
        self._before: list[Tensor | None] = []  # within a step only; None for what the optimizer will not move

    @property
    def _idle(self) -> bool:
        return self.config.sigma == 0 and not self.config.protect

    def before_step(self, network: Network) -> None:
        if self._idle:
            return
        self._before = []
        for parameter, utility in zip(network.parameters(), self.utilities, strict=True):
            self._before.append(None if parameter.grad is None else parameter.clone())
            if parameter.grad is not None:
                utility.lerp_(-parameter.grad * parameter, 1 - self.config.decay)

    def after_step(self, network: Network) -> None:
        if self._idle:
            return
        largest = self._largest(network)
        for parameter, utility, before in zip(network.parameters(), self.utilities, self._before, strict=True):
            if before is None:
                continue
            # all utilities have seen equally many steps: the bias corrections of u and of the largest u cancel
            scaled = torch.sigmoid(utility / largest.view(*largest.shape, *(1,) * (utility.dim() - largest.dim())))
            if self.config.protect:
                parameter.lerp_(before, scaled)
            if self.config.sigma:
                noise = self.random.normal(*parameter.shape, std=self.config.sigma).to(parameter)
                parameter.sub_(network.learning_rate(parameter) * noise * (1 - scaled))
        self._before = []

    def _largest(self, network: Network) -> Tensor:
        """The largest utility of each network, (*replicas); never below the smallest positive number."""
        largest = torch.stack([u.flatten(len(network.replicas)).amax(-1) for u in self.utilities]).amax(0)
        return largest.clamp_min(torch.finfo(largest.dtype).tiny)
