"""Replace hidden units: fresh incoming weights, silent outgoing ones, a fresh optimizer state."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from plasticity.layers import HiddenLayer, weight_of
from plasticity.network import Network


@torch.no_grad()
def replace_units(
    network: Network,
    picked: Mapping[str, Tensor],
    fresh: Callable[[HiddenLayer, int], Tensor],
    *,
    mean_activation: Mapping[str, Tensor] | None = None,
    reset_optimizer: bool = True,
) -> dict[str, Tensor]:
    """Replace the picked units of each layer; returns what that changed in each layer's readers.

    picked: by layer name, a mask (*replicas, units).
    fresh: (layer, count) -> new incoming weights (count, fan_in).
    mean_activation: by layer name, (*replicas, units); if given, W_out f is first added to the readers' biases (mean
        transfer), so that their outputs change by -W_out (h - f) and not by -W_out h.
    Returns by layer name the mean absolute change of its readers' outputs over the recorded batch, a scalar.

    All layers' transfers come first, then all fresh rows, then all silenced columns: where one replaced unit reads
    another, the weight between them ends as zero, as the outgoing weights of every replaced unit do.
    """
    means = mean_activation or {}
    layers = [layer for layer in network.layers if layer.name in picked]
    changes = {
        layer.name: _transfer(layer, picked[layer.name], means.get(layer.name), network.activations.get(layer.name))
        for layer in layers
    }
    for layer in layers:
        _redraw(layer, picked[layer.name], fresh)
    for layer in layers:
        _silence(layer, picked[layer.name])
        if network.sync_twins and layer.name in network.twins:
            _repeat(layer, network.twins[layer.name], picked[layer.name], means.get(layer.name))
    if reset_optimizer:
        for layer in layers:
            _forget(layer, picked[layer.name], network)
    return changes


def _transfer(layer: HiddenLayer, mask: Tensor, mean: Tensor | None, activations: Tensor | None) -> Tensor:
    """Move the picked units' mean contribution into the readers' biases; returns the mean absolute output change."""
    changes = []
    picked = mask.nonzero().squeeze(1) if mask.dim() == 1 else None  # without replicas, only these are looked at
    for reader in layer.readers:
        moved = mean if mean is not None and layer.takes_mean(reader) else None
        columns = reader.columns(layer.units)  # (*replicas, units, outputs, positions)
        if moved is not None:
            chosen = columns * (moved * mask)[..., None, None] if picked is None else _scaled(columns, moved, picked)
            reader.linear.bias += chosen.sum((-3, -1))  # type: ignore[operator]
        if activations is None:
            continue
        if picked is not None and activations.dim() == 2 and columns.shape[-1] == 1:
            lost = activations[:, picked] - (0 if moved is None else moved[picked])
            change = lost @ columns[picked].squeeze(-1)
        else:
            transferred = torch.zeros_like(mask, dtype=layer.weight.dtype) if moved is None else moved * mask
            change = reader.respond((activations - layer.as_output(transferred)) * layer.as_output(mask))
        changes.append(change.abs().mean())
    return torch.stack(changes).mean() if changes else torch.zeros(())


def _scaled(columns: Tensor, mean: Tensor, picked: Tensor) -> Tensor:
    return columns[picked] * mean[picked, None, None]


def _redraw(layer: HiddenLayer, mask: Tensor, fresh: Callable[[HiddenLayer, int], Tensor]) -> None:
    rows = fresh(layer, int(mask.sum())).to(layer.weight)
    layer.weight[mask] = rows.reshape(-1, *layer.weight.shape[mask.dim() :])
    if layer.bias is not None:
        layer.bias[mask] = 0
    _renew_norm(layer, mask)


def _renew_norm(layer: HiddenLayer, mask: Tensor) -> None:
    if layer.norm is not None and layer.norm.weight is not None:
        layer.norm.weight[mask] = 1
        if layer.norm.bias is not None:
            layer.norm.bias[mask] = 0


def _silence(layer: HiddenLayer, mask: Tensor) -> None:
    for reader in layer.readers:
        reader.columns(layer.units)[mask] = 0
    for noise in layer.noise_readers:
        noise.parameter[mask.repeat_interleave(layer.copies, -1)] = noise.value


def _repeat(layer: HiddenLayer, twin: HiddenLayer, mask: Tensor, mean: Tensor | None) -> None:
    """The same replacement in a target network."""
    _transfer(twin, mask, mean, None)
    twin.weight[mask] = layer.weight[mask]
    if twin.bias is not None:
        twin.bias[mask] = 0
    _renew_norm(twin, mask)
    _silence(twin, mask)


def _forget(layer: HiddenLayer, mask: Tensor, network: Network) -> None:
    norm = [] if layer.norm is None else [layer.norm.weight, layer.norm.bias]
    for parameter in (layer.weight, layer.bias, *norm):
        if parameter is not None:
            network.forget(parameter, rows=mask)
    for noise in layer.noise_readers:
        network.forget(noise.parameter, rows=mask.repeat_interleave(layer.copies, -1))
    for reader in layer.readers:
        network.forget(weight_of(reader.linear), columns=reader.mask(mask))
