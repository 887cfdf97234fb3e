"""Choices of architecture: what methods ask of a network, and how one that was just built is given it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import nn

from plasticity.layers import CONVOLUTIONS, HiddenLayer, copies_of, weight_of
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
                raise SettingsError([f"two methods ask for different {item.name}: {merged[item.name]} and {value}"])
    return NetworkOptions(**merged)


@torch.no_grad()
def rebuild(root: nn.Module, networks: Iterable[Network], options: NetworkOptions) -> None:
    """Give networks inside `root`, target networks included, another architecture, before any training.

    A doubling activation takes the first half of a layer's freshly drawn rows. Optimizers get the new parameters in the
    places of the old ones. The networks' descriptions are out of date afterwards: `close()` them and describe anew.
    Raises `ValueError` where a width is odd, a layer is normalised already, or an optimizer has already stepped.
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
    linear: Any = layer.linear
    old_weight, old_bias, width = weight_of(linear), layer.bias, layer.units * layer.copies
    units, odd = divmod(width, copies_of(new))
    if odd:
        raise ValueError(
            f"{type(new).__name__} puts out two numbers a unit, so widths must be even; "
            f"got {width} in layer {layer.name!r}"
        )
    changed: dict[nn.Parameter, list[nn.Parameter]] = {}
    if units != layer.units:
        if units > layer.units:
            raise ValueError(f"layer {layer.name!r} is doubled already: build the network with a plain activation")
        linear.weight = nn.Parameter(old_weight[:units].clone(), requires_grad=old_weight.requires_grad)
        changed[old_weight] = [linear.weight]
        if old_bias is not None:
            linear.bias = nn.Parameter(old_bias[:units].clone(), requires_grad=old_bias.requires_grad)
            changed[old_bias] = [linear.bias]
        setattr(linear, "out_channels" if isinstance(linear, CONVOLUTIONS) else "out_features", units)
    if options.layer_norm:
        if layer.norm is not None:
            raise ValueError(f"layer {layer.name!r} is normalised already")
        norm = nn.GroupNorm(1, units) if isinstance(linear, CONVOLUTIONS) else nn.LayerNorm(units)
        norm = norm.to(old_weight).requires_grad_(old_weight.requires_grad)
        changed[old_weight] = [*changed.get(old_weight, [old_weight]), *norm.parameters()]
        new = nn.Sequential(norm, new)
    if new is not layer.activation:
        _put(root, layer.activation, new)
    return changed


def _put(root: nn.Module, old: nn.Module, new: nn.Module) -> None:
    places = [(p, name) for p in root.modules() for name, child in p.named_children() if child is old]
    for parent, name in places:
        setattr(parent, name, new)
    if not places:
        raise ValueError(f"{old} is in no module of {type(root).__name__}: nothing can stand in its place")
