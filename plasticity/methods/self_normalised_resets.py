"""Self-normalised resets: replace a unit that has been silent for longer than it ever is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from plasticity.initialisation import INITIALISATIONS
from plasticity.intervention import Intervention
from plasticity.layers import HiddenLayer
from plasticity.metrics import CONSTANT, silent_units
from plasticity.network import Network
from plasticity.recycling import Recycler
from plasticity.settings import check, from_mapping, setting


@dataclass(frozen=True)
class SelfNormalisedResetsConfig:
    """Settings of `SelfNormalisedResets`.

    percentile: of a unit's own silences; a longer one is taken for its death. The paper's eta is 1 - percentile.
    max_threshold: gradient steps; what every unit's threshold starts with and never exceeds.
    update_period: gradient steps from one look at the silences to the next; their lengths set the new thresholds.
    silence: a unit of a smooth activation counts as silent below this standard deviation over a minibatch (GELU, SiLU
        and Mish: below this size in every row).
    init: the distribution of fresh incoming weights; `network` is the scale the layer started with.
    """

    percentile: float = setting(0.99, within="(0, 1)")
    max_threshold: int = setting(200, within="[1, inf)")
    update_period: int = setting(10_000, within="[1, inf)")
    silence: float = setting(CONSTANT, within="[0, inf)")
    init: str = setting("network", choices=INITIALISATIONS)

    def __post_init__(self) -> None:
        check(self)

    def build(self, network: Network, seed: int) -> SelfNormalisedResets:
        """The intervention for one network."""
        return SelfNormalisedResets(network.layers, seed=seed, stream=network.name, **asdict(self))


class SelfNormalisedResets(Recycler, Intervention):
    """Replace a unit that is silent for longer than the `percentile` of its own silences, at every gradient step.

    A unit fires in a gradient step if it is not dead on that minibatch (`plasticity.dead_units`): ReLU, h > 0 in some
    row; smooth activations, which are never 0, by `silence`. A silence is a run of steps without firing. A unit whose
    silence grows longer than its threshold is replaced as in `ReDo`, and its silence ends there. Every `update_period`
    steps each threshold becomes the `percentile` of the silences since the last update, those that a replacement ended
    among them; if more than 1 - percentile of them were ended that way, the percentile lies beyond the threshold, which
    then doubles. Fewer than 1 / (1 - percentile) silences say nothing of that percentile: the threshold stays and they
    are kept for the next update.

    Farias & Jozefiak, "Self-normalized resets for plasticity in continual learning", ICLR 2025, arXiv 2410.20098,
    Algorithm 1, and the authors' code for the histogram, the doubling and for counting no silence between two steps
    that both fire. There thresholds are in examples and change every few tasks, a silence as long as the threshold
    already resets, and a unit without a single silence gets the smallest threshold of all: one silent minibatch.
    """

    steps: Tensor

    def __init__(
        self, layers: Sequence[HiddenLayer], *, seed: int = 0, stream: str = "self_normalised_resets", **settings: Any
    ):
        config = from_mapping(SelfNormalisedResetsConfig, settings)
        super().__init__(layers, init=config.init, seed=seed, stream=stream, method="self_normalised_resets")
        self.config = config
        self.silences = nn.ModuleDict({layer.name: _Silences(layer, config.max_threshold) for layer in layers})
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def after_step(self, network: Network) -> None:
        self.steps += 1
        update = int(self.steps) % self.config.update_period == 0
        picked = {}
        for layer in network.trained_layers:
            silences = self._silences(layer.name)
            silent = silent_units(layer, network.activations[layer.name], self.config.silence)
            picked[layer.name] = silences.observe(silent)
            if update:
                silences.set_thresholds(self.config.percentile)
        self.recycle(network, picked)

    def _silences(self, name: str) -> _Silences:
        silences = self.silences[name]
        assert isinstance(silences, _Silences)
        return silences

    def telemetry(self) -> dict[str, float]:
        """For each layer: units `replaced` so far and the median `threshold`, in gradient steps."""
        thresholds = {name: float(self._silences(name).threshold.double().median()) for name in self.silences}
        return super().telemetry() | {f"{name}/threshold": value for name, value in thresholds.items()}


class _Silences(nn.Module):
    """How long a layer's units have been silent, how long their silences were, and how long they may be.

    length, threshold: (*replicas, units), gradient steps.
    histogram: (*replicas, units, longest + 2), how many silences of 0, 1, ..., longest + 1 steps there were since the
        last update; bin 0 stays empty, and no silence outlives the longest threshold by more than a step.
    """

    length: Tensor
    threshold: Tensor
    histogram: Tensor

    def __init__(self, layer: HiddenLayer, longest: int):
        super().__init__()
        self.longest = longest
        shape, device = layer.unit_shape, layer.weight.device
        self.register_buffer("length", torch.zeros(shape, dtype=torch.int64, device=device))
        self.register_buffer("threshold", torch.full(shape, longest, dtype=torch.int64, device=device))
        self.register_buffer("histogram", torch.zeros((*shape, longest + 2), dtype=torch.int32, device=device))

    def observe(self, silent: Tensor) -> Tensor:
        """Take in which units were silent in a step, (*replicas, units); returns which are to be replaced."""
        self.length.add_(silent)
        too_long = silent & (self.length > self.threshold)
        ended = ((self.length > 0) & ~silent) | too_long
        bins = self.length.clamp_max(self.longest + 1).unsqueeze(-1)
        self.histogram.scatter_add_(-1, bins, ended.unsqueeze(-1).to(torch.int32))
        self.length[ended] = 0
        return too_long

    def set_thresholds(self, percentile: float) -> None:
        """New thresholds from the silences since the last time, for units with enough of them to tell."""
        seen = self.histogram.cumsum(-1)
        total = seen[..., -1]
        enough = total >= math.ceil(1 / (1 - percentile) - 1e-6)  # 1 - 0.99 is a little less than 0.01
        length = (seen < percentile * total.unsqueeze(-1)).sum(-1)  # the shortest that covers this share
        new = length.where(length <= self.threshold, 2 * self.threshold).clamp(1, self.longest)
        self.threshold.copy_(new.where(enough, self.threshold))
        self.histogram[enough] = 0
