"""What methods that replace whole units share: fresh weights from a stream of their own, and a count of units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from plasticity.initialisation import uniform_bound
from plasticity.intervention import Randomness
from plasticity.layers import HiddenLayer
from plasticity.network import Network
from plasticity.replacement import replace_units


class Recycler(nn.Module):
    """Replaces units as `replace_units` does and counts them; which ones is for the method to say.

    init: the distribution of fresh incoming weights, see `plasticity.uniform_bound`; `network` is the scale that each
        layer has when this is made.
    seed, stream, method: name the random stream that fresh weights come from.
    """

    def __init__(self, layers: Sequence[HiddenLayer], *, init: str, seed: int, stream: str, method: str):
        super().__init__()
        self.random = Randomness(seed, stream, method)
        self.layers = nn.ModuleDict({layer.name: _Counts(layer, init) for layer in layers})

    def recycle(self, network: Network, picked: Mapping[str, Tensor]) -> None:
        """Replace the marked units: by layer name, masks (*replicas, units), which may be all False."""
        picked = {name: mask for name, mask in picked.items() if mask.any()}
        if picked:
            replace_units(network, picked, self._fresh)
        for name, mask in picked.items():
            self.layers[name].replaced += mask.sum()  # type: ignore[operator]

    def _fresh(self, layer: HiddenLayer, count: int) -> Tensor:
        bound = float(self.layers[layer.name].bound)  # type: ignore[arg-type]
        return self.random.uniform(count, layer.incoming().shape[-1], bound=bound)

    def telemetry(self) -> dict[str, float]:
        """For each layer: units `replaced` so far."""
        return {f"{name}/replaced": float(state.replaced) for name, state in self.layers.items()}  # type: ignore[arg-type]


class _Counts(nn.Module):
    def __init__(self, layer: HiddenLayer, init: str):
        super().__init__()
        bound = uniform_bound(layer.linear, init, layer.activation)
        self.register_buffer("bound", torch.tensor(bound, dtype=torch.float64))
        self.register_buffer("replaced", torch.zeros((), dtype=torch.int64, device=layer.weight.device))
