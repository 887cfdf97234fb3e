"""Resets: re-initialise the last layers, or all, now and then."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from plasticity.buffers import Buffers
from plasticity.initialisation import INITIALISATIONS, redraw, uniform_bounds
from plasticity.intervention import Every, Intervention, OnChange, Period, Randomness, schedule
from plasticity.layers import HiddenLayer, is_trained, weight_of
from plasticity.network import Network
from plasticity.settings import check, setting


@dataclass(frozen=True)
class ResetConfig:
    """Settings of `Reset`.

    layers: how many of each network's last layers start afresh, or `all`; all heads together are the last layer. The
        paper resets all layers of SAC, and the last one of the deeper networks that play Atari.
    period: gradient steps from one time to the next, or `change`: at every change of the world. The paper resets SAC
        every 2e5 environment steps, which are as many gradient steps where each has one.
    init: the distribution of the fresh weights; `network` is the scale each layer started with.
    log_std: let a policy's free log standard deviations start afresh too, from their first values.
    """

    layers: int | Literal["all"] = setting("all", within="[0, inf)")
    period: Period = setting(200_000, within="[1, inf)")
    init: str = setting("network", choices=INITIALISATIONS)
    log_std: bool = setting(False)

    def __post_init__(self) -> None:
        check(self)

    def build(self, network: Network, seed: int) -> Every | OnChange:
        """The intervention for one network."""
        method = Reset(network, layers=self.layers, init=self.init, log_std=self.log_std, seed=seed)
        return schedule(self.period, method)


class Reset(nn.Module, Intervention):
    """Re-initialise the last `layers` layers, each time it acts: `Every(200_000, Reset(network, layers=1))`.

    Weights are drawn anew and biases 0; normalisation gains of these layers are 1 again, their biases 0; the optimizer
    forgets all of it. A target network gets the same weights. Layers with frozen weights are left alone. What an agent
    keeps, such as a replay buffer, is left alone too and is what it relearns from. Parameters are written in place, so
    the optimizer goes on training them.

    Nikishin et al., "The primacy bias in deep reinforcement learning", ICML 2022, arXiv 2205.07802. The authors' code
    makes a completely new agent, entropy temperature included, which here is left alone; as here, its new target critic
    equals its new critic.
    """

    bounds: Tensor
    resets: Tensor

    def __init__(
        self,
        network: Network,
        *,
        layers: int | Literal["all"] = "all",
        init: str = "network",
        log_std: bool = False,
        seed: int = 0,
    ):
        super().__init__()
        self.config = ResetConfig(layers=layers, init=init, log_std=log_std)
        self.random = Randomness(seed, network.name, "reset")
        self.register_buffer("bounds", uniform_bounds(network.linears, init, network.layers))
        self.log_std = Buffers(network.log_std)
        self.register_buffer("resets", torch.zeros((), dtype=torch.int64))

    def after_step(self, network: Network) -> None:
        chosen = self._last_layers(network)
        if not chosen:
            return
        self.resets += 1
        for linear, bound in zip(network.linears, self.bounds.tolist(), strict=True):
            if linear in chosen:
                redraw(linear, bound, self.random.uniform)
                self._forget(network, linear)
        for layer in network.layers:
            if layer.linear in chosen:
                self._renew_norms(network, layer)
        for linear, twin in network.pairs():
            if linear in chosen:
                twin.load_state_dict(linear.state_dict())
        if self.config.log_std:
            for parameter, first in zip(network.log_std, self.log_std, strict=True):
                parameter.copy_(first)
                network.forget(parameter)

    def telemetry(self) -> dict[str, float]:
        """`resets`: how often it has acted."""
        return {"resets": float(self.resets)}

    def _last_layers(self, network: Network) -> set[nn.Module]:
        hidden = [layer.linear for layer in network.layers]
        heads = [linear for linear in network.linears if linear not in hidden]
        levels = [[linear] for linear in hidden if linear in network.linears] + ([heads] if heads else [])
        count = len(levels) if self.config.layers == "all" else self.config.layers
        chosen = {linear for level in levels[max(len(levels) - count, 0) :] for linear in level}
        return {linear for linear in chosen if is_trained(weight_of(linear))}

    def _renew_norms(self, network: Network, layer: HiddenLayer) -> None:
        twin = network.twins.get(layer.name)
        for norm in (layer.norm, None if twin is None else twin.norm):
            if norm is not None:
                norm.reset_parameters()
        if layer.norm is not None:
            self._forget(network, layer.norm)

    def _forget(self, network: Network, module: nn.Module) -> None:
        for parameter in module.parameters(recurse=False):
            network.forget(parameter)
