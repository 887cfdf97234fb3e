"""Plasticity injection: freeze what a network says and let a fresh one learn the changes to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from plasticity.buffers import HostCounts
from plasticity.copies import HeadsCopy
from plasticity.initialisation import INITIALISATIONS, redraw, uniform_bounds
from plasticity.intervention import Every, Idle, Intervention, OnChange, Period, Randomness, schedule
from plasticity.layers import HiddenLayer
from plasticity.network import Network
from plasticity.settings import check, setting


@dataclass(frozen=True)
class PlasticityInjectionConfig:
    """Settings of `PlasticityInjection`.

    period: gradient steps until the injection, or `change`: at the first change of the world. There is one injection
        only.
    init: the distribution of the fresh weights; `network` is the scale each layer started with.
    """

    period: Period = setting("change", within="[1, inf)")
    init: str = setting("network", choices=INITIALISATIONS)

    def __post_init__(self) -> None:
        check(self)

    def build(self, network: Network, seed: int) -> Every | OnChange | Idle:
        """The intervention for one network; idle for an encoder, all of whose layers other networks build upon."""
        if not injected_layers(network):
            return Idle()
        return schedule(self.period, PlasticityInjection(network, init=self.init, seed=seed))


class PlasticityInjection(nn.Module, Intervention):
    """f(x) <- frozen(x) + live(x) - copy(x), once: `Every(100_000, PlasticityInjection(network))`.

    At the injection `frozen` takes all weights of the network, `live` and `copy` the same freshly drawn ones (biases 0,
    norms as new), so that nothing changes in what the network says (but for rounding). From then on only `live`
    learns: it keeps the network's own parameters, so that the optimizer, whose state of them starts afresh, and all
    other methods go on with it. The correction frozen(x) - copy(x) is added to what each head puts out, in training,
    evaluation and metrics alike; gradients pass through it to the inputs (an encoder's, or actions in a critic), not to
    its weights. A target network, described by `network.twins`, is injected at the same time with the same fresh
    weights and its own frozen ones: an average of old and fresh weights would be neither network. Weights that do not
    train (`requires_grad` off) are drawn anew with the others: inject networks that train as a whole.

    Both copies are submodules without gradients from the start, and so are saved, loaded and moved; a further injection
    would take two more of each layer, so there is none. Layers that other networks read, the encoder of the paper, are
    left as they are, and the layers after them are injected.

    Raises `ValueError` where a head reads other things besides the network's units, or where exploration noise does
    (gSDE), which would change.

    Source: Nikishin et al., "Deep reinforcement learning with plasticity injection", NeurIPS 2023, arXiv 2305.15555,
    expression 1. There the injection comes at a fixed time of training; `change` is ours.
    """

    bounds: Tensor

    def __init__(self, network: Network, *, init: str = "network", seed: int = 0):
        super().__init__()
        self.config = PlasticityInjectionConfig(init=init)
        self.random = Randomness(seed, network.name, "plasticity_injection")
        layers, twins = injected_layers(network), _twins(network)
        network.heads()  # raises where there is more to the outputs than the hidden layers
        if layers[-1].noise_readers:
            raise ValueError(
                f"network {network.name!r}: its hidden layer scales exploration noise (gSDE), which an injection "
                "would change; use another noise, or leave plasticity_injection out"
            )
        self.register_buffer("bounds", uniform_bounds(_linears(layers), init, layers))
        self.online = _Correction(layers)
        self.target = _Correction(twins) if twins else None

    def after_step(self, network: Network) -> None:
        if self.online.injected:
            return
        layers, twins = injected_layers(network), _twins(network)
        self.online.freeze(layers)
        self._redraw(layers)
        for module in _modules(layers):
            for parameter in module.parameters():
                network.forget(parameter)
        self.online.start(layers)
        if self.target is not None:
            self.target.freeze(twins)
            for fresh, old in zip(_modules(layers), _modules(twins), strict=True):
                _copy(fresh, old)
            self.target.start(twins)

    def _redraw(self, layers: Sequence[HiddenLayer]) -> None:
        for linear, bound in zip(_linears(layers), self.bounds.tolist(), strict=True):
            redraw(linear, bound, self.random.uniform)
        for layer in layers:
            if layer.norm is not None:
                layer.norm.reset_parameters()

    def telemetry(self) -> dict[str, float]:
        """`injected`: 1 after the injection, 0 before."""
        return {"injected": float(self.online.injected)}


class _Correction(HostCounts):
    """What an injected network's heads put out besides the live network: frozen(x) - copy(x).

    Hooks on the first hidden layer and on the heads bring it there; before the injection they do nothing.
    """

    injected: Tensor

    def __init__(self, layers: Sequence[HiddenLayer]):
        super().__init__()
        self.frozen, self.copy = _Function(layers), _Function(layers)
        self.register_buffer("injected", torch.zeros((), dtype=torch.bool))
        self._pending: dict[int, Tensor] = {}
        layers[0].linear.register_forward_pre_hook(self._read)
        for place, head in enumerate(_heads(layers)):
            head.register_forward_hook(partial(self._add, place))

    def freeze(self, layers: Sequence[HiddenLayer]) -> None:
        """Take the weights that the network has."""
        self.frozen.take(layers)

    def start(self, layers: Sequence[HiddenLayer]) -> None:
        """Take the fresh weights of the live network; from now on correct what it says."""
        self.copy.take(layers)
        self.injected.fill_(True)

    def _read(self, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        if self.injected:
            pairs = zip(self.frozen(args[0]), self.copy(args[0]), strict=True)
            self._pending = {place: frozen - copy for place, (frozen, copy) in enumerate(pairs)}

    def _add(self, place: int, module: nn.Module, args: Any, output: Tensor) -> Tensor | None:
        if not self.injected:
            return None
        if place not in self._pending:
            raise RuntimeError(
                f"{module} was called without a pass through the network's first hidden layer; an injected network's "
                "outputs depend on its inputs"
            )
        return output + self._pending.pop(place)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_pending": {}}  # tensors that are results can be neither copied nor pickled


class _Function(HeadsCopy):
    """Frozen copies of hidden layers and their heads: (batch, ...) -> what each head puts out."""

    def __init__(self, layers: Sequence[HiddenLayer]):
        super().__init__(layers)
        self.requires_grad_(False)

    def take(self, layers: Sequence[HiddenLayer]) -> None:
        """Take the values that the layers and their heads have now."""
        live = [parameter for module in _modules(layers) for parameter in module.parameters()]
        for own, other in zip(self.parameters(), live, strict=True):
            own.copy_(other)


def injected_layers(network: Network) -> Sequence[HiddenLayer]:
    """The hidden layers after the last one that another network reads."""
    foreign = [
        place
        for place, layer in enumerate(network.layers)
        if any(reader.linear not in network.linears for reader in layer.readers)
    ]
    return network.layers[foreign[-1] + 1 :] if foreign else network.layers


def _twins(network: Network) -> list[HiddenLayer]:
    return [network.twins[layer.name] for layer in injected_layers(network) if layer.name in network.twins]


def _heads(layers: Sequence[HiddenLayer]) -> list[nn.Module]:
    return [reader.linear for reader in layers[-1].readers]


def _linears(layers: Sequence[HiddenLayer]) -> list[nn.Module]:
    return [*(layer.linear for layer in layers), *_heads(layers)]


def _modules(layers: Sequence[HiddenLayer]) -> list[nn.Module]:
    """All modules with parameters, in the order of their copies."""
    parts = [part for layer in layers for part in (layer.linear, layer.norm, layer.activation) if part is not None]
    return [*parts, *_heads(layers)]


def _copy(source: nn.Module, target: nn.Module) -> None:
    for one, other in zip(target.parameters(), source.parameters(), strict=True):
        one.copy_(other)
