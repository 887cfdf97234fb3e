"""Hidden layers: which units there are, which weights make them, and which layers read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
Norm: TypeAlias = nn.LayerNorm | nn.GroupNorm


@dataclass(frozen=True, eq=False)
class Reader:
    """A layer whose inputs are a hidden layer's units.

    linear: `nn.Linear`, `nn.ConvNd`, or any module with a weight (*replicas, outputs, inputs).
    first: its input column (or channel) that reads unit 0.
    span: input columns (or channels) for one unit: 1, 2 after an activation that doubles, and height * width as many
        where channels were flattened.
    """

    linear: nn.Module
    first: int = 0
    span: int = 1

    @property
    def takes_mean(self) -> bool:
        """Can a constant input move into the bias exactly? Not without a bias, nor where zero padding dilutes it."""
        padding: Any = getattr(self.linear, "padding", 0)
        unpadded = padding == "valid" if isinstance(padding, str) else not any(_tuple(padding))
        return getattr(self.linear, "bias", None) is not None and unpadded

    def columns(self, units: int, tensor: Tensor | None = None) -> Tensor:
        """A view (*replicas, units, outputs, positions) of the outgoing weights, or of `tensor` shaped like them."""
        weight = weight_of(self.linear) if tensor is None else tensor
        if isinstance(self.linear, CONVOLUTIONS):
            read = weight[:, self.first : self.first + units * self.span]
            return read.view(len(read), units, -1).transpose(0, 1)  # a copy would swallow what is written to it
        read = weight[..., self.first : self.first + units * self.span]
        return read.view(*read.shape[:-1], units, self.span).movedim(-2, -3)

    def magnitude(self, units: int) -> tuple[Tensor, int]:
        """The sum of |W_out| for each unit, (*replicas, units), and how many weights each sum has."""
        weight = weight_of(self.linear)
        if isinstance(self.linear, CONVOLUTIONS):
            read = weight[:, self.first : self.first + units * self.span]
            return read.abs().sum((0, *range(2, read.dim()))).view(units, -1).sum(-1), read.numel() // units
        total = weight[..., self.first : self.first + units * self.span].abs().sum(-2)
        if self.span > 1:
            total = total.view(*total.shape[:-1], units, self.span).sum(-1)
        return total, weight.shape[-2] * self.span

    def mask(self, units: Tensor) -> Tensor:
        """Boolean (*replicas, units) to boolean (*replicas, inputs): every input that reads a marked unit."""
        weight = weight_of(self.linear)
        inputs = weight.shape[1] if isinstance(self.linear, CONVOLUTIONS) else weight.shape[-1]
        mask = units.new_zeros((*units.shape[:-1], inputs))
        mask[..., self.first : self.first + units.shape[-1] * self.span] = units.repeat_interleave(self.span, -1)
        return mask

    def respond(self, activations: Tensor) -> Tensor:
        """What `activations`, as the hidden layer puts them out, add to this layer's output (without its bias)."""
        weight = weight_of(self.linear)
        if isinstance(self.linear, CONVOLUTIONS):
            channels = activations.shape[1]
            convolve = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}[weight.dim()]
            layer: Any = self.linear
            return convolve(
                activations,
                weight[:, self.first : self.first + channels],
                None,
                layer.stride,
                layer.padding,
                layer.dilation,
            )
        if weight.dim() == 2:
            activations = activations.flatten(1)
        columns = weight[..., self.first : self.first + activations.shape[-1]]
        return (activations.unsqueeze(-2) @ columns.mT).squeeze(-2)


@dataclass(frozen=True, eq=False)
class NoiseReader:
    """A parameter (units, outputs) that scales exploration noise with a unit: gSDE's log standard deviations.

    A replaced unit's rows take `value` (its initial one); zero would mean a standard deviation of 1.
    """

    parameter: nn.Parameter
    value: float


@dataclass(frozen=True, eq=False)
class HiddenLayer:
    """Units h = activation(norm(linear(x))), and every layer that reads h.

    A unit is an output of `linear`, or a channel if it is a convolution. An activation that puts out several numbers
    for each unit, side by side, says so in its attribute `copies`. A module with a weight (*replicas, units,
    inputs) and a bias (*replicas, units) holds independent networks side by side, each with units of its own.
    """

    name: str
    linear: nn.Module
    activation: nn.Module
    readers: tuple[Reader, ...]
    norm: Norm | None = None
    noise_readers: tuple[NoiseReader, ...] = ()

    def __post_init__(self) -> None:
        if not self.readers:
            raise ValueError(f"hidden layer {self.name!r} has no readers: name every layer that reads its units")
        for linear in (self.linear, *(reader.linear for reader in self.readers)):
            if getattr(linear, "groups", 1) != 1:
                raise ValueError(f"hidden layer {self.name!r}: grouped convolutions are not supported, got {linear}")

    @property
    def weight(self) -> nn.Parameter:
        """The incoming weights: (*replicas, units, inputs) or (units, in_channels, *kernel)."""
        return weight_of(self.linear)

    @property
    def bias(self) -> nn.Parameter | None:
        """(*replicas, units), or None."""
        return getattr(self.linear, "bias", None)

    @property
    def trainable(self) -> bool:
        """Can units be replaced by ones that learn? Not where incoming or outgoing weights are frozen."""
        return all(is_trained(weight_of(linear)) for linear in (self.linear, *(r.linear for r in self.readers)))

    @property
    def unit_shape(self) -> torch.Size:
        """(*replicas, units)."""
        return self.weight.shape[:1] if isinstance(self.linear, CONVOLUTIONS) else self.weight.shape[:-1]

    @property
    def units(self) -> int:
        """How many units the layer has (each replica)."""
        return self.unit_shape[-1]

    def incoming(self) -> Tensor:
        """A view (*replicas, units, fan_in) of the incoming weights."""
        return matrix_of(self.linear)

    @property
    def copies(self) -> int:
        """How many numbers the activation puts out for each unit."""
        return copies_of(self.activation)

    def __call__(self, inputs: Tensor) -> Tensor:
        """h for a batch of what the layer reads, (batch, ...) -> (batch, outputs) or (batch, channels, ...)."""
        z = self.linear(inputs)
        h: Tensor = self.activation(z if self.norm is None else self.norm(z))
        return h

    def takes_mean(self, reader: Reader) -> bool:
        """Can a unit's mean activation move into the reader's bias exactly?"""
        return self.copies == 1 and reader.takes_mean

    def features(self, activations: Tensor) -> Tensor:
        """Activations as (rows, outputs), every number of a unit by itself; a channel has a row for every position."""
        if isinstance(self.linear, CONVOLUTIONS):
            return activations.movedim(1, -1).flatten(0, -2)
        return activations.flatten(0, -2)

    def rows(self, activations: Tensor) -> Tensor:
        """Activations as (rows, *replicas, units); a unit has a row for every position and every copy."""
        if self.copies > 1:
            features = self.features(activations)
            return features.view(len(features), self.units, self.copies).movedim(-1, 0).flatten(0, 1)
        if isinstance(self.linear, CONVOLUTIONS):
            return self.features(activations)
        replicas_and_units = len(self.unit_shape)
        if activations.dim() == replicas_and_units:
            return activations[None]
        return activations.flatten(0, -1 - replicas_and_units)

    def as_output(self, per_unit: Tensor) -> Tensor:
        """(*replicas, units) shaped to broadcast against what the activation puts out."""
        per_unit = per_unit.repeat_interleave(self.copies, -1)
        trailing = self.weight.dim() - 2 if isinstance(self.linear, CONVOLUTIONS) else 0
        return per_unit.reshape(*per_unit.shape, *(1,) * trailing)


def weight_of(linear: nn.Module) -> nn.Parameter:
    """The weight of a linear or convolutional layer."""
    weight = linear._parameters.get("weight")  # a tenth of the time that nn.Module takes to find an attribute
    if weight is None:
        raise ValueError(f"the weight of {linear} is missing, or computed from others and no parameter of its own")
    return weight


def matrix_of(linear: nn.Module) -> Tensor:
    """A view (*replicas, outputs, fan_in) of a layer's weight; a convolution's kernels are laid out flat."""
    weight = weight_of(linear)
    return weight.flatten(1) if isinstance(linear, CONVOLUTIONS) else weight


def is_trained(parameter: nn.Parameter) -> bool:
    """Not frozen: it asks for gradients, or somebody who works them out by hand has given it one."""
    return parameter.requires_grad or parameter.grad is not None


def copies_of(activation: nn.Module) -> int:
    """How many numbers an activation puts out for each of its inputs."""
    return int(getattr(activation, "copies", 1))


def _tuple(padding: int | Sequence[int]) -> Sequence[int]:
    return (padding,) if isinstance(padding, int) else padding
