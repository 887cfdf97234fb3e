"""Sparse training: which weights of a network's hidden layers exist, and what keeps the others at 0."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from plasticity.buffers import Buffers
from plasticity.layers import HiddenLayer
from plasticity.network import Network

DISTRIBUTIONS = ("erk", "uniform")


class SparseWeights(nn.Module):
    """The masks of a sparsely trained network: True where a weight of a hidden layer exists, all of them at first.

    Masked are the incoming weights of every hidden layer, frozen ones too, in masks shaped like them; the output layer
    and all biases stay dense.
    Several networks side by side have masks of their own. A missing weight is 0, gets no gradient, and its optimizer
    state is that of a weight never trained. Gradients are masked just before the optimizer's step, when PPO has clipped
    them: those of missing weights count in the norm. What methods named after a sparse one write to missing weights
    lasts until that one's next turn: name those that replace, reset or perturb weights before it.

    A target network starts with the same masks; later its missing weights fade as it follows, or with `sync_twins`
    vanish at once.
    """

    def __init__(self, network: Network):
        super().__init__()
        self.names = [layer.name for layer in network.layers]
        self.masks = Buffers(torch.ones_like(layer.weight, dtype=torch.bool) for layer in network.layers)

    def of(self, network: Network) -> Iterator[tuple[HiddenLayer, Tensor]]:
        """Each hidden layer with its mask."""
        return zip(network.layers, self.masks, strict=True)

    def mask_gradients(self, network: Network) -> None:
        """No gradient for missing weights."""
        for layer, mask in self.of(network):
            if layer.weight.grad is not None:
                layer.weight.grad.masked_fill_(~mask, 0)

    def mask_weights(self, network: Network) -> None:
        """Missing weights are 0, whatever else wrote there."""
        for layer, mask in self.of(network):
            layer.weight.masked_fill_(~mask, 0)
            if network.sync_twins and (twin := network.twins.get(layer.name)) is not None:
                twin.weight.masked_fill_(~mask, 0)

    @torch.no_grad()
    def start(self, network: Network, masks: Sequence[Tensor]) -> None:
        """The first masks, for the target network too."""
        for (layer, mask), new in zip(self.of(network), masks, strict=True):
            mask.copy_(new)
            for same in (layer, network.twins.get(layer.name)):
                if same is not None:
                    same.weight.masked_fill_(~mask, 0)

    def change(self, network: Network, layer: HiddenLayer, new: Tensor) -> None:
        """Another mask: weights that vanish and weights that appear are 0, and the optimizer knows nothing of them."""
        mask = dict(zip(self.names, self.masks, strict=True))[layer.name]
        changed = mask ^ new
        if changed.any():
            layer.weight.masked_fill_(changed, 0)
            network.forget(layer.weight, entries=changed)
            mask.copy_(new)

    def telemetry(self) -> dict[str, float]:
        """For each layer: its `sparsity`, the share of its weights that are missing."""
        return {
            f"{name}/sparsity": 1 - float(mask.double().mean())
            for name, mask in zip(self.names, self.masks, strict=True)
        }


def densities(layers: Sequence[HiddenLayer], sparsity: float, distribution: str) -> list[float]:
    """The share of its weights that each layer keeps, such that all layers together miss `sparsity` of them.

    `uniform`: every layer 1 - sparsity. `erk` (Erdos-Renyi kernel): in proportion to the sum of the weight's sizes over
    their product, (n_in + n_out) / (n_in n_out) for a linear layer, so small layers stay denser; a layer that
    would keep more than all its weights keeps all, and the others less.

    Source: Mocanu et al., Nature Communications 9:2383 (2018); with kernels, Evci et al., ICML 2020, arXiv 1911.11134.
    """
    if distribution == "uniform":
        return [1 - sparsity] * len(layers)
    shapes = [layer.weight.shape[len(layer.unit_shape) - 1 :] for layer in layers]
    sizes = [math.prod(shape) for shape in shapes]
    dense: set[int] = set()
    while len(dense) < len(layers):
        sparse = [i for i in range(len(layers)) if i not in dense]
        left = (1 - sparsity) * sum(sizes) - sum(sizes[i] for i in dense)
        scale = left / sum(sum(shapes[i]) for i in sparse)
        found = {i: scale * sum(shapes[i]) / sizes[i] for i in sparse}
        if max(found.values()) <= 1:
            return [found.get(i, 1.0) for i in range(len(layers))]
        dense |= {i for i, density in found.items() if density > 1}
    return [1.0] * len(layers)


def per_network(layer: HiddenLayer, tensor: Tensor) -> Tensor:
    """A tensor shaped like a layer's incoming weights as (*replicas, weights)."""
    return tensor.flatten(len(layer.unit_shape) - 1)


def largest(scores: Tensor, count: int | Tensor, among: Tensor) -> Tensor:
    """A mask of the `count` largest scores where `among` is True, along the last dimension; ties: the first ones.

    scores, among: (*replicas, weights). count: one number, or one for each of (*replicas,); never more than there are.
    """
    order = scores.where(among, -torch.inf).argsort(dim=-1, descending=True, stable=True)
    count = torch.as_tensor(count, device=scores.device)
    first = torch.arange(scores.shape[-1], device=scores.device) < count[..., None]
    return torch.zeros_like(among).scatter(-1, order, first.expand(among.shape)) & among
