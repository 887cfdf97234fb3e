"""Weight clipping: no weight may leave a multiple of the range it was drawn from."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from torch import Tensor, nn

from plasticity.initialisation import INITIALISATIONS, uniform_bounds
from plasticity.intervention import Intervention
from plasticity.layers import is_trained
from plasticity.network import Network
from plasticity.settings import check, setting


@dataclass(frozen=True)
class WeightClippingConfig:
    """Settings of `WeightClipping`.

    zeta: weights and biases are clipped to +-zeta times their layer's initial bound. The published PPO code uses 3;
        the supervised experiments try 1 to 5.
    init: the distribution whose bound counts. `default` is torch's own, 1 / sqrt(n_in), which the published code
        takes however the network was initialised; `network` is the scale that the layer started with.
    heads: clip the network's output layers too, as the published runs do. A value head that must put out large
        returns cannot if it is.
    """

    zeta: float = setting(3.0, within="(0, inf)")
    init: str = setting("default", choices=INITIALISATIONS)
    heads: bool = setting(True)

    def __post_init__(self) -> None:
        check(self)

    def build(self, network: Network, seed: int) -> WeightClipping:
        """The intervention for one network; initial bounds are those it has now."""
        return WeightClipping(network, **asdict(self))


class WeightClipping(nn.Module, Intervention):
    """Clips each layer's weights and biases to [-zeta s, zeta s] after every gradient step, s the layer's bound.

    A bias has the bound of its own layer's weights, by that layer's fan-in. The bounds are taken when this is made and
    saved with it. Normalisation gains, log standard deviations, optimizer states and what is frozen are left alone.

    Source: Elsayed, Lan, Lyle & Mahmood, "Weight clipping for deep continual and reinforcement learning", RLC 2024,
    arXiv 2407.01704 (zeta is their kappa), and their code. It clips all that the optimizer holds, PPO's log standard
    deviations and normalisation gains too, and bounds a vector by the fan-in of the matrix last seen before it.
    """

    bounds: Tensor

    def __init__(self, network: Network, zeta: float = 3.0, *, init: str = "default", heads: bool = True):
        super().__init__()
        self.config = WeightClippingConfig(zeta, init, heads)
        self.register_buffer("bounds", uniform_bounds(network.linears, init, network.layers))

    def after_step(self, network: Network) -> None:
        hidden = {layer.linear for layer in network.layers}
        for linear, bound in zip(network.linears, (self.config.zeta * self.bounds).tolist(), strict=True):
            if linear in hidden or self.config.heads:
                for parameter in linear.parameters(recurse=False):
                    if is_trained(parameter):
                        parameter.clamp_(-bound, bound)
