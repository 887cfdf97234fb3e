"""Shrink and Perturb: shrink all weights and add a little of a fresh network."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from plasticity.initialisation import INITIALISATIONS, uniform_bounds
from plasticity.intervention import Every, Intervention, OnChange, Period, Randomness, schedule
from plasticity.layers import is_trained
from plasticity.network import Network
from plasticity.settings import check, setting


@dataclass(frozen=True)
class ShrinkAndPerturbConfig:
    """Settings of `ShrinkAndPerturb`.

    shrink: what remains of every weight and bias (a).
    perturb: how much of a fresh draw is added (b); with `noise=gaussian` the standard deviation of the noise.
    period: gradient steps from one time to the next (1 is every step), or `change`: at every change of the world.
    noise: `fresh` adds weights of a newly drawn network; `gaussian` adds N(0, perturb^2) to weights and biases.
    init: the distribution of the fresh network; `network` is the scale each layer started with.
    """

    shrink: float = setting(0.5, within="[0, 1]")
    perturb: float = setting(0.5, within="[0, inf)")
    period: Period = setting(10_000, within="[1, inf)")
    noise: str = setting("fresh", choices=("fresh", "gaussian"))
    init: str = setting("network", choices=INITIALISATIONS)

    def __post_init__(self) -> None:
        check(self)

    def build(self, network: Network, seed: int) -> Every | OnChange:
        """The intervention for one network."""
        method = ShrinkAndPerturb(
            network,
            shrink=self.shrink,
            perturb=self.perturb,
            noise=self.noise,
            init=self.init,
            seed=seed,
        )
        return schedule(self.period, method)


class ShrinkAndPerturb(nn.Module, Intervention):
    """theta <- shrink * theta + perturb * theta_fresh, each time it acts; theta_fresh is drawn anew each time.

    Ash & Adams, "On warm-starting neural network training", NeurIPS 2020, arXiv 1910.08475; the per-step Gaussian form
    is that of Dohare et al., Nature 632:768 (2024), whose code shrinks by weight decay. Fresh biases are 0.
    Normalisation gains, log standard deviations, optimizer states and what is frozen are left alone.
    """

    bounds: Tensor
    perturbations: Tensor

    def __init__(
        self,
        network: Network,
        *,
        shrink: float = 0.5,
        perturb: float = 0.5,
        noise: str = "fresh",
        init: str = "network",
        seed: int = 0,
    ):
        super().__init__()
        self.config = ShrinkAndPerturbConfig(shrink=shrink, perturb=perturb, noise=noise, init=init)
        self.random = Randomness(seed, network.name, "shrink_and_perturb")
        self.register_buffer("bounds", uniform_bounds(network.linears, init, network.layers))
        self.register_buffer("perturbations", torch.zeros((), dtype=torch.int64))

    def after_step(self, network: Network) -> None:
        shrink, perturb = self.config.shrink, self.config.perturb
        if shrink == 1 and perturb == 0:
            return
        self.perturbations += 1
        for linear, bound in zip(network.linears, self.bounds.tolist(), strict=True):
            for name, parameter in linear.named_parameters(recurse=False):
                if not is_trained(parameter):
                    continue
                parameter.mul_(shrink)
                if self.config.noise == "gaussian":
                    parameter.add_(self.random.normal(*parameter.shape, std=perturb).to(parameter))
                elif name == "weight":
                    parameter.add_(self.random.uniform(*parameter.shape, bound=bound).to(parameter), alpha=perturb)

    def telemetry(self) -> dict[str, float]:
        """`perturbations`: how often it has acted."""
        return {"perturbations": float(self.perturbations)}
