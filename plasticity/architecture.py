"""Choices of architecture: what methods ask of a network, and how one that was just built is given it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import nn

from plasticity.layers import CONVOLUTIONS, HiddenLayer, copies_of
from plasticity.network import Network
from plasticity.settings import SettingsError


@dataclass(frozen=True)
class NetworkOptions:
    """What methods ask of a network and its optimizer before training; None or False leave a thing as it is.

    activation: of all hidden layers; one that puts out two numbers a unit gets half as many units, so that widths stay.
    layer_norm: normalise each hidden layer before its activation.
    betas: of Adam.
    """

    activation: type[nn.Module] | None = None
    layer_norm: bool = False
    betas: tuple[float, float] | None = None

    @property
    def rebuild(self) -> bool:
        """Is the architecture another one?"""
        return self.activation is not None or self.layer_norm


def merge_options(options: Iterable[NetworkOptions]) -> NetworkOptions:
    """All of them at once; raises `SettingsError` where two ask for different things."""
    merged: dict[str, Any] = {}
    for one in options:
        for item in fields(NetworkOptions):
            value = getattr(one, item.name)
            if value is None or value is False:
                continue
            if merged.setdefault(item.name, value) != value:
                raise SettingsError(
                    [f"two methods ask for different {item.name}: {_shown(merged[item.name])} and {_shown(value)}"]
                )
    return NetworkOptions(**merged)


def require(network: Network, options: NetworkOptions, method: str) -> None:
    """Raises `ValueError` where a network, its target network or its optimizers are not as a method's options ask."""
    wanted = None
    for layer in (*network.layers, *network.twins.values()):
        if options.activation is not None and not isinstance(layer.activation, options.activation):
            wanted = f"activation {options.activation.__name__}, but layer {layer.name!r} has {layer.activation}"
        elif options.layer_norm and layer.norm is None:
            wanted = f"every layer normalised, but layer {layer.name!r} is not"
    for optimizer in network.optimizers if options.betas is not None else ():
        for betas in (group.get("betas") for group in optimizer.param_groups):
            if betas is None or tuple(betas) != options.betas:
                wanted = f"Adam with betas {options.betas}, but {type(optimizer).__name__} has {betas or 'none'}"
    if wanted is not None:
        raise ValueError(
            f"network {network.name!r}: {method} needs {wanted}; make the network and its optimizer as "
            f'plasticity.network_options("{method}") says (plasticity.rebuild changes a network before training)'
        )


def _shown(value: Any) -> str:
    return value.__name__ if isinstance(value, type) else str(value)


@torch.no_grad()
def rebuild(root: nn.Module, networks: Iterable[Network], options: NetworkOptions) -> None:
    """Give networks inside `root`, target networks included, another architecture, before any training.

    A doubling activation takes the first half of a layer's freshly drawn rows. Optimizers get the new parameters in the
    places of the old ones. The networks' descriptions are out of date afterwards: `close()` them and describe anew.
    Raises `ValueError` where a width is odd, a layer is doubled or normalised already, a module holds several networks
    side by side, or an optimizer has already stepped.
    """
    for network in networks:
        if any(optimizer.state for optimizer in network.optimizers):
            raise ValueError(
                f"network {network.name!r}: its architecture can change before training only, "
                "but its optimizer has state"
            )
        for layer in (*network.layers, *network.twins.values()):
            changed = _rebuild_layer(root, layer, options)
            for optimizer in network.optimizers:
                for group in optimizer.param_groups:
                    group["params"] = [new for old in group["params"] for new in changed.get(old, [old])]


def _rebuild_layer(
    root: nn.Module, layer: HiddenLayer, options: NetworkOptions
) -> dict[nn.Parameter, list[nn.Parameter]]:
    """Returns what stands for which old parameter."""
    new: nn.Module = layer.activation if options.activation is None else options.activation()
    weight, width = layer.weight, layer.units * layer.copies
    units, odd = divmod(width, copies_of(new))
    if odd:
        raise ValueError(
            f"{type(new).__name__} puts out two numbers a unit, so widths must be even; "
            f"got {width} in layer {layer.name!r}"
        )
    if len(layer.unit_shape) > 1:
        raise ValueError(
            f"layer {layer.name!r} holds {layer.unit_shape[0]} networks side by side: build each by itself"
        )
    if units > layer.units:
        raise ValueError(f"layer {layer.name!r} is doubled already: build the network with a plain activation")
    changed = {}
    if units < layer.units:
        changed = _shrink(layer.linear, units) | ({} if layer.norm is None else _shrink(layer.norm, units))
    if options.layer_norm:
        if layer.norm is not None:
            raise ValueError(f"layer {layer.name!r} is normalised already")
        norm = nn.GroupNorm(1, units) if isinstance(layer.linear, CONVOLUTIONS) else nn.LayerNorm(units)
        norm = norm.to(weight).requires_grad_(weight.requires_grad)
        changed[weight] = [*changed.get(weight, [weight]), *norm.parameters()]
        new = nn.Sequential(norm, new)
    if new is not layer.activation:
        _put(root, layer.activation, new)
    return changed


def _shrink(module: nn.Module, units: int) -> dict[nn.Parameter, list[nn.Parameter]]:
    """Keep the first units of a linear layer, a convolution or a normalisation."""
    changed = {}
    for name, old in list(module.named_parameters(recurse=False)):
        new = nn.Parameter(old[:units].clone(), requires_grad=old.requires_grad)
        setattr(module, name, new)
        changed[old] = [new]
    sizes = {"out_features": units, "out_channels": units, "num_channels": units, "normalized_shape": (units,)}
    for name, size in sizes.items():
        if hasattr(module, name):
            setattr(module, name, size)
    return changed


def _put(root: nn.Module, old: nn.Module, new: nn.Module) -> None:
    places = [(p, name) for p in root.modules() for name, child in p.named_children() if child is old]
    for parent, name in places:
        setattr(parent, name, new)
    if not places:
        raise ValueError(f"{old} is in no module of {type(root).__name__}: nothing can stand in its place")
