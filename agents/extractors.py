"""Features extractors as chains of modules, and the linear layers in chains."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from stable_baselines3.common.torch_layers import FlattenExtractor, NatureCNN
from torch import nn

from plasticity import HiddenLayer
from plasticity.layers import CONVOLUTIONS


def extractor_modules(extractor: nn.Module) -> list[nn.Module]:
    """The modules of a features extractor in order: none for flattening, convolutions and a linear layer for NatureCNN.

    An extractor of one's own offers them as `plastic_modules()`, a list as `plasticity.hidden_layers` takes it.
    """
    if hasattr(extractor, "plastic_modules"):
        return list(extractor.plastic_modules())  # type: ignore[operator]
    if type(extractor) is FlattenExtractor:  # a subclass may have layers of its own
        return []
    if type(extractor) is NatureCNN:
        return [*extractor.cnn, *extractor.linear]
    raise ValueError(
        f"features extractor {type(extractor).__name__} has hidden layers that nobody described: allowed are "
        "FlattenExtractor, NatureCNN, or one with a method plastic_modules() that lists its layers in order"
    )


def linears(modules: Iterable[nn.Module]) -> list[nn.Module]:
    """Every linear and convolutional layer, in order."""
    return [part for module in modules for part in module.modules() if isinstance(part, (nn.Linear, *CONVOLUTIONS))]


def first_linear(modules: Iterable[nn.Module]) -> nn.Module:
    """The layer that reads what goes into a chain."""
    return linears(modules)[0]


def own_linears(
    layers: Sequence[HiddenLayer], others: Iterable[Sequence[HiddenLayer]], exclude: Sequence[nn.Module] = ()
) -> list[nn.Module]:
    """Hidden layers and readers, less those that another network counts among its hidden layers."""
    foreign = {layer.linear for other in others for layer in other} | set(exclude)
    every = [layer.linear for layer in layers] + [reader.linear for layer in layers for reader in layer.readers]
    return [linear for linear in dict.fromkeys(every) if linear not in foreign]
