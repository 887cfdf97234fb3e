"""Every method by its name: name -> frozen config dataclass -> intervention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias

from torch import nn

from plasticity.architecture import NetworkOptions, merge_options
from plasticity.intervention import Chain
from plasticity.methods.architecture_choices import (
    CReLUConfig,
    EqualBetaAdamConfig,
    FourierConfig,
    LayerNormConfig,
)
from plasticity.methods.churn import ChurnReductionConfig
from plasticity.methods.continual_backprop import ContinualBackpropConfig
from plasticity.methods.grama import GraMaConfig
from plasticity.methods.hare_tortoise import HareTortoiseConfig
from plasticity.methods.l2 import L2Config
from plasticity.methods.l2_init import L2InitConfig
from plasticity.methods.magnitude_pruning import MagnitudePruningConfig
from plasticity.methods.nap import NaPConfig
from plasticity.methods.neuroplastic_expansion import NeuroplasticExpansionConfig
from plasticity.methods.parseval import ParsevalConfig
from plasticity.methods.plasticity_injection import PlasticityInjectionConfig
from plasticity.methods.redo import ReDoConfig
from plasticity.methods.reset import ResetConfig
from plasticity.methods.rigl import RigLConfig
from plasticity.methods.self_normalised_resets import SelfNormalisedResetsConfig
from plasticity.methods.shrink_and_perturb import ShrinkAndPerturbConfig
from plasticity.methods.spectral import SpectralConfig
from plasticity.methods.upgd import UPGDConfig
from plasticity.methods.wasserstein import WassersteinConfig
from plasticity.methods.weight_clipping import WeightClippingConfig
from plasticity.network import Network
from plasticity.settings import SettingsError, from_mapping, unknown


class MethodConfig(Protocol):
    """Settings of a method, and how to make it for one network."""

    def build(self, network: Network, seed: int) -> nn.Module:
        """An `Intervention` that is a module; it draws from streams of its own, derived from seed and network name.

        A config may also have `options() -> NetworkOptions`: what it asks of the network before it is built.
        """
        ...


METHODS: dict[str, type[Any]] = {
    "cbp": ContinualBackpropConfig,
    "redo": ReDoConfig,
    "l2": L2Config,
    "shrink_and_perturb": ShrinkAndPerturbConfig,
    "l2_init": L2InitConfig,
    "wasserstein": WassersteinConfig,
    "spectral": SpectralConfig,
    "parseval": ParsevalConfig,
    "weight_clipping": WeightClippingConfig,
    "upgd": UPGDConfig,
    "hare_tortoise": HareTortoiseConfig,
    "crelu": CReLUConfig,
    "fourier": FourierConfig,
    "layer_norm": LayerNormConfig,
    "nap": NaPConfig,
    "ns": EqualBetaAdamConfig,
    "plasticity_injection": PlasticityInjectionConfig,
    "churn": ChurnReductionConfig,
    "grama": GraMaConfig,
    "self_normalised_resets": SelfNormalisedResetsConfig,
    "reset": ResetConfig,
    "magnitude_pruning": MagnitudePruningConfig,
    "rigl": RigLConfig,
    "neuroplastic_expansion": NeuroplasticExpansionConfig,
}

Methods: TypeAlias = "str | MethodConfig | Sequence[str | MethodConfig] | Mapping[str, Mapping[str, Any]] | None"


def method_config(name: str, settings: Mapping[str, Any] | None = None, where: str = "") -> MethodConfig:
    """The settings of the method called `name`; raises `SettingsError` naming everything that is wrong with them.

    where: a path that error texts start with, such as "plasticity.cbp".
    """
    if name not in METHODS:
        raise SettingsError([unknown("method", name, ["none", *METHODS])])
    if not isinstance(settings, Mapping | None):
        raise SettingsError([f"{where or name} must be a mapping of settings, got {settings!r}"])
    config: MethodConfig = from_mapping(METHODS[name], settings or {}, where or name)
    return config


def method_configs(methods: Methods) -> list[MethodConfig]:
    """What a user may write for methods, as a list of configs in order.

    methods: None or "none"; a name; a config such as `ContinualBackpropConfig()` or one's own; a list of these; or a
        mapping of names to settings, `{"l2": {"strength": 1e-3}, "cbp": {}}`.
    """
    if methods is None or methods == "none":
        return []
    if isinstance(methods, str):
        return [method_config(methods)]
    if isinstance(methods, Mapping):
        return [method_config(name, settings) for name, settings in methods.items() if name != "none"]
    if isinstance(methods, Sequence):
        return [config for entry in methods for config in method_configs(entry)]
    if isinstance(methods, type) or not hasattr(methods, "build"):
        raise SettingsError([f"a method must be a name or a config with build(network, seed), got {methods!r}"])
    return [methods]


def network_options(methods: Methods) -> NetworkOptions:
    """What all methods together ask of a network before training: its architecture and Adam's betas."""
    configs: list[Any] = [config for config in method_configs(methods) if hasattr(config, "options")]
    return merge_options(config.options() for config in configs)


def build_intervention(methods: Methods, network: Network, seed: int) -> Chain:
    """All methods for one network, in order; each draws from a stream of its own, also where one stands twice."""
    return Chain([config.build(network, seed + (place << 32)) for place, config in enumerate(method_configs(methods))])


def take_first_weights(chain: Chain, methods: Methods, network: Network, seed: int) -> None:
    """Let methods that remember a network's first weights begin anew with those that it has been given since.

    Others have seen of it no more than its shapes and the scale that its weights are drawn at. Arguments are those that
    `build_intervention` made `chain` of.
    """
    for place, (config, method) in enumerate(zip(method_configs(methods), chain, strict=True)):
        if getattr(method, "made_of_first_weights", False):
            method.load_state_dict(config.build(network, seed + (place << 32)).state_dict())
