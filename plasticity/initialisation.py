"""The distributions that fresh weights come from."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from plasticity.layers import CONVOLUTIONS, HiddenLayer, weight_of

_Gain: TypeAlias = Literal["linear", "tanh", "sigmoid", "selu", "leaky_relu", "relu"]

INITIALISATIONS = ("lecun", "kaiming", "xavier", "default", "network")
_GAINS: dict[type[nn.Module], _Gain] = {
    nn.Tanh: "tanh",
    nn.Sigmoid: "sigmoid",
    nn.SELU: "selu",
    nn.LeakyReLU: "leaky_relu",
    nn.Identity: "linear",
}


def _gain_name(activation: nn.Module | None) -> _Gain:
    return "linear" if activation is None else _GAINS.get(type(activation), "relu")


def uniform_bound(linear: nn.Module, init: str, activation: nn.Module | None = None) -> float:
    """b such that fresh weights of a linear or convolutional layer are uniform on [-b, b).

    init: `lecun` sqrt(3 / n_in); `kaiming` gain sqrt(3 / n_in); `xavier` gain sqrt(6 / (n_in + n_out)); `default`
        sqrt(1 / n_in), torch's own; `network`: the scale that these very weights have now (sqrt(3) times their root
        mean square), which is right for networks initialised otherwise, such as SB3's orthogonal ones.
    activation: decides the gain as `torch.nn.init.calculate_gain` does; smooth relatives of ReLU count as ReLU,
        no activation as linear.

    Source: the initialisers of Dohare et al., Nature 632:768 (2024); `network` is ours.
    """
    weight = weight_of(linear)
    if init == "network":
        return math.sqrt(3) * float(weight.detach().double().square().mean().sqrt())
    if isinstance(linear, CONVOLUTIONS):
        positions = weight[0, 0].numel()
        fan_out, fan_in = weight.shape[0] * positions, weight.shape[1] * positions
    else:
        fan_out, fan_in = weight.shape[-2:]
    gain = nn.init.calculate_gain(_gain_name(activation))
    if init == "xavier":
        return gain * math.sqrt(6 / (fan_in + fan_out))
    return {"lecun": math.sqrt(3), "kaiming": gain * math.sqrt(3), "default": 1.0}[init] / math.sqrt(fan_in)


def uniform_bounds(linears: Iterable[nn.Module], init: str, layers: Sequence[HiddenLayer]) -> Tensor:
    """`uniform_bound` of each of `linears`, float64; an activation is behind those of the hidden `layers` only."""
    activation: dict[nn.Module, nn.Module] = {layer.linear: layer.activation for layer in layers}
    bounds = [uniform_bound(linear, init, activation.get(linear)) for linear in linears]
    return torch.tensor(bounds, dtype=torch.float64)


@torch.no_grad()
def redraw(linear: nn.Module, bound: float, uniform: Callable[..., Tensor]) -> None:
    """Fresh weights from `uniform(*shape, bound=bound)`, a method's own stream, in place; biases become 0."""
    weight = weight_of(linear)
    weight.copy_(uniform(*weight.shape, bound=bound))
    if isinstance(bias := getattr(linear, "bias", None), Tensor):
        bias.zero_()


@torch.no_grad()
def initialise(linear: nn.Module, init: str, activation: nn.Module | None = None) -> None:
    """Draw a layer's weights anew from torch's global generator, uniform within `uniform_bound`; its biases are 0."""
    bound = uniform_bound(linear, init, activation)
    weight_of(linear).uniform_(-bound, bound)
    if isinstance(bias := getattr(linear, "bias", None), Tensor):
        bias.zero_()
