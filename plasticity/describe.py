"""Find the hidden layers of a plain chain of modules, and who reads each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeGuard

from torch import nn

from plasticity.activations import CReLU, Fourier
from plasticity.layers import CONVOLUTIONS, HiddenLayer, NoiseReader, Norm, Reader, copies_of, weight_of

TRANSPARENT = (nn.Identity, nn.Dropout, nn.Flatten)
# What one unit says must depend on that unit alone, without randomness
_MIXING = {"MultiheadAttention", "GLU", "Softmax", "Softmax2d", "Softmin", "LogSoftmax", "RReLU"}
ACTIVATIONS = (*(getattr(nn, name) for name in nn.modules.activation.__all__ if name not in _MIXING), CReLU, Fourier)


def hidden_layers(
    modules: Iterable[nn.Module],
    readers: Sequence[nn.Module | Reader] = (),
    noise_readers: Sequence[NoiseReader] = (),
) -> list[HiddenLayer]:
    """The hidden layers of `Linear or Conv, [norm,] activation, ...`, named "0", "1", ... from the input on.

    modules: a `nn.Sequential`, or its parts in order (nested ones are opened).
    readers: every layer outside the chain that reads its last hidden layer.
    noise_readers: parameters that scale noise with the last hidden layer (gSDE).

    A linear layer followed by another without an activation has no hidden units and is no hidden layer.
    Raises `ValueError` on a module whose effect on single units is unknown, residual blocks among them.
    """
    found: list[tuple[nn.Module, nn.Module, Norm | None]] = []
    after: list[list[nn.Module | Reader]] = []
    linear: nn.Module | None = None
    norm: Norm | None = None
    fresh = False  # the last thing seen is an activation, so the next linear layer reads units
    for place, module in _flat(modules):
        if isinstance(module, (nn.Linear, *CONVOLUTIONS)):
            if fresh:
                after[-1].append(module)
            linear, norm, fresh = module, None, False
        elif _norm_of(module, linear) and not fresh:
            norm = module
        elif isinstance(module, ACTIVATIONS):
            if fresh or linear is None:
                raise ValueError(
                    f"module {place} ({module}): an activation must follow a linear or convolutional layer"
                )
            found.append((linear, module, norm))
            after.append([])
            fresh = True
        elif not isinstance(module, TRANSPARENT) or getattr(module, "inplace", False):
            raise ValueError(
                f"module {place} ({module}): its units may mix or be read across blocks, as in a residual stream, so "
                "they cannot be replaced one by one; allowed between layers are Linear, Conv, LayerNorm between Linear "
                "and activation (GroupNorm(1, channels) after Conv), "
                "element-wise activations, Dropout (not in place) and Flatten"
            )
    if fresh:
        after[-1].extend(readers)
    elif readers:
        raise ValueError("readers were given, but the chain does not end in an activation: nothing reads its output")
    last = len(found) - 1
    return [
        HiddenLayer(
            name=str(i),
            linear=linear,
            activation=activation,
            readers=tuple(_reader(reader, linear, copies_of(activation)) for reader in reading),
            norm=norm,
            noise_readers=tuple(noise_readers) if i == last else (),
        )
        for i, ((linear, activation, norm), reading) in enumerate(zip(found, after, strict=True))
    ]


def _flat(modules: Iterable[nn.Module], prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    for i, module in enumerate(modules):
        if isinstance(module, nn.Sequential):
            yield from _flat(module, f"{prefix}{i}.")
        else:
            yield f"{prefix}{i}", module


def _norm_of(module: nn.Module, linear: nn.Module | None) -> TypeGuard[Norm]:
    if isinstance(module, nn.GroupNorm):
        return module.num_groups == 1 and isinstance(linear, CONVOLUTIONS)
    return isinstance(module, nn.LayerNorm) and isinstance(linear, nn.Linear)


def _reader(reader: nn.Module | Reader, linear: nn.Module, copies: int) -> Reader:
    """A reader of all units of `linear`; doubled activations and flattened channels take several columns each."""
    if isinstance(reader, Reader):
        return reader
    if isinstance(reader, CONVOLUTIONS):
        return Reader(reader, span=copies)
    units, inputs = weight_of(linear).shape[0], weight_of(reader).shape[-1]
    span, rest = divmod(inputs, units)
    if rest or (span != copies and not isinstance(linear, CONVOLUTIONS)):
        raise ValueError(
            f"{reader} has {inputs} inputs, which do not say where it reads the {units} units of {linear}; "
            "name the columns with Reader(layer, first=..., span=...)"
        )
    return Reader(reader, span=span)
