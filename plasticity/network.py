"""Which units a network has, who reads them, and what they last did."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from plasticity.optim import UnitAdam, reset_state

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True, eq=False)
class Reader:
    """A layer whose inputs are a hidden layer's units.

    linear: `nn.Linear`, `nn.ConvNd`, or any module with a weight (*replicas, outputs, inputs).
    first: its input column (or channel) that reads unit 0.
    span: input columns for one unit: 1, or height * width where channels were flattened.
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
            return weight[:, self.first : self.first + units].flatten(2).transpose(0, 1)
        read = weight[..., self.first : self.first + units * self.span]
        return read.view(*read.shape[:-1], units, self.span).movedim(-2, -3)

    def magnitude(self, units: int) -> tuple[Tensor, int]:
        """The sum of |W_out| for each unit, (*replicas, units), and how many weights each sum has."""
        weight = weight_of(self.linear)
        if isinstance(self.linear, CONVOLUTIONS):
            read = weight[:, self.first : self.first + units]
            return read.abs().sum((0, *range(2, read.dim()))), read[:, 0].numel()
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
            units = activations.shape[1]
            convolve = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}[weight.dim()]
            layer: Any = self.linear
            return convolve(
                activations,
                weight[:, self.first : self.first + units],
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

    A unit is an output of `linear`, or a channel if it is a convolution. A module with a weight (*replicas, units,
    inputs) and a bias (*replicas, units) holds independent networks side by side, each with units of its own.
    """

    name: str
    linear: nn.Module
    activation: nn.Module
    readers: tuple[Reader, ...]
    norm: nn.LayerNorm | None = None
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
    def unit_shape(self) -> torch.Size:
        """(*replicas, units)."""
        return self.weight.shape[:1] if isinstance(self.linear, CONVOLUTIONS) else self.weight.shape[:-1]

    @property
    def units(self) -> int:
        """How many units the layer has (each replica)."""
        return self.unit_shape[-1]

    def incoming(self) -> Tensor:
        """A view (*replicas, units, fan_in) of the incoming weights."""
        return self.weight.flatten(len(self.unit_shape))

    def rows(self, activations: Tensor) -> Tensor:
        """Activations as (rows, *replicas, units); a channel has a row for every position."""
        if isinstance(self.linear, CONVOLUTIONS):
            return activations.movedim(1, -1).flatten(0, -2)
        replicas_and_units = len(self.unit_shape)
        if activations.dim() == replicas_and_units:
            return activations[None]
        return activations.flatten(0, -1 - replicas_and_units)

    def as_output(self, per_unit: Tensor) -> Tensor:
        """(*replicas, units) shaped to broadcast against what the activation puts out."""
        trailing = self.weight.dim() - 2 if isinstance(self.linear, CONVOLUTIONS) else 0
        return per_unit.reshape(*per_unit.shape, *(1,) * trailing)


class Network:
    """The hidden layers of one network and the optimizers that own its weights.

    activations: for each layer, by name, what its activation put out in the latest forward pass that had gradients
        enabled, so rollouts, targets, metrics and evaluation under `torch.no_grad` never show up here.
    optimizers: the first is the one whose steps train the network; a weight's state may lie in any of them.
    linears: the layers whose weights and biases belong to this network (default: hidden layers and their readers).
    log_std: free parameters that scale a policy's noise; regularisers leave them alone unless asked.
    twins: the same layers in a target network that follows this one; with `sync_twins` they get the same replacements.
    """

    def __init__(
        self,
        name: str,
        layers: Sequence[HiddenLayer],
        optimizers: Sequence[Optimizer],
        *,
        linears: Iterable[nn.Module] | None = None,
        log_std: Sequence[nn.Parameter] = (),
        twins: Sequence[HiddenLayer] = (),
        sync_twins: bool = False,
    ):
        self.name, self.layers, self.optimizers = name, tuple(layers), tuple(optimizers)
        every = [layer.linear for layer in layers] + [reader.linear for layer in layers for reader in layer.readers]
        self.linears = tuple(dict.fromkeys(every if linears is None else linears))
        self.log_std = tuple(log_std)
        self.twins, self.sync_twins = {twin.name: twin for twin in twins}, sync_twins
        self.activations: dict[str, Tensor] = {}
        self._check()
        self._recorders = [_Recorder(self.activations, layer.name, layer.activation) for layer in self.layers]
        for layer, recorder in zip(self.layers, self._recorders, strict=True):
            layer.activation.register_forward_hook(recorder)

    def _check(self) -> None:
        if not self.optimizers:
            raise ValueError(f"network {self.name!r} has no optimizer")
        names = [layer.name for layer in self.layers]
        if len(set(names)) != len(names):
            raise ValueError(f"network {self.name!r}: layer names must differ, got {names}")
        seen: dict[nn.Module, str] = {}
        for layer in self.layers:
            if len(layer.unit_shape) > 1 and any(isinstance(optimizer, UnitAdam) for optimizer in self.optimizers):
                raise ValueError(
                    f"network {self.name!r}: UnitAdam counts the rows and columns of one network, but layer "
                    f"{layer.name!r} holds {layer.unit_shape[0]} side by side; use another optimizer"
                )
            if layer.activation in seen:
                raise ValueError(
                    f"network {self.name!r}: layers {seen[layer.activation]!r} and {layer.name!r} share one activation "
                    "module; give each its own, or their units cannot be told apart"
                )
            seen[layer.activation] = layer.name
        owned = {id(p) for optimizer in self.optimizers for group in optimizer.param_groups for p in group["params"]}
        for linear in self.linears:
            for name, parameter in linear.named_parameters(recurse=False):
                if parameter.requires_grad and id(parameter) not in owned:
                    raise ValueError(f"network {self.name!r}: {name} of {linear} is in none of its optimizers")

    def parameters(self, *, biases: bool = True, log_std: bool = False) -> list[nn.Parameter]:
        """Weights (and biases, and log standard deviations) of this network; never normalisation gains."""
        found = [weight_of(linear) for linear in self.linears]
        if biases:
            every = [getattr(linear, "bias", None) for linear in self.linears]
            found += [bias for bias in every if isinstance(bias, nn.Parameter)]
        return found + list(self.log_std if log_std else ())

    def learning_rate(self, parameter: nn.Parameter) -> float:
        """The learning rate the network's optimizers use for `parameter`."""
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                if any(p is parameter for p in group["params"]):
                    return float(group["lr"])
        raise ValueError(f"network {self.name!r}: no optimizer holds a parameter of shape {tuple(parameter.shape)}")

    def forget(self, parameter: nn.Parameter, *, rows: Tensor | None = None, columns: Tensor | None = None) -> None:
        """Reset the optimizers' state of some rows (outputs) or columns (inputs) of a parameter, given as masks."""
        for optimizer in self.optimizers:
            reset_state(optimizer, parameter, rows=rows, columns=columns)

    @contextmanager
    def watch(self) -> Iterator[dict[str, Tensor]]:
        """Collect what each layer puts out in forward passes inside the block; needs no gradients, leaves no trace.

        `activations` stays as it is even where a pass enables gradients by itself, as SB3's critics do.
        """
        seen: dict[str, Tensor] = {}
        watchers = [_Recorder(seen, layer.name, layer.activation, always=True) for layer in self.layers]
        handles = [w.module.register_forward_hook(w) for w in watchers]
        for recorder in self._recorders:
            recorder.paused = True
        try:
            yield seen
        finally:
            for handle in handles:
                handle.remove()
            for recorder in self._recorders:
                recorder.paused = False


class _Recorder:
    """A forward hook that keeps a module's output. A deep copy of the module keeps the hook but records nothing."""

    def __init__(self, into: dict[str, Tensor], name: str, module: nn.Module, always: bool = False):
        self.into, self.name, self.module, self.always = into, name, module, always
        self.paused = False

    def __call__(self, module: nn.Module, args: Any, output: Tensor) -> None:
        if module is self.module and not self.paused and (self.always or torch.is_grad_enabled()):
            self.into[self.name] = output.detach()

    def __deepcopy__(self, memo: Any) -> _Recorder:
        return self


def weight_of(linear: nn.Module) -> nn.Parameter:
    """The weight of a linear or convolutional layer."""
    weight = getattr(linear, "weight", None)
    if not isinstance(weight, nn.Parameter):
        raise ValueError(f"the weight of {linear} is missing, or computed from others and no parameter of its own")
    return weight


def _tuple(padding: int | Sequence[int]) -> Sequence[int]:
    return (padding,) if isinstance(padding, int) else padding
