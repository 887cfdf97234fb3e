"""Keep a network able to learn: methods against loss of plasticity, and measures of it, for any torch training loop.

network = Network("net", hidden_layers(model), [optimizer])
attach(ContinualBackprop(network.layers, replacement_rate=1e-4, maturity=1000), network)
"""

from plasticity.activations import CReLU, Fourier
from plasticity.architecture import NetworkOptions, rebuild
from plasticity.copies import OutputCopy, copied
from plasticity.describe import hidden_layers
from plasticity.initialisation import INITIALISATIONS, initialise, uniform_bound
from plasticity.intervention import Chain, Every, Idle, Intervention, OnChange, Randomness, attach, schedule
from plasticity.landscape import gradient_covariance, hessian_eigenvalues, landscape_metrics, tangent_kernel
from plasticity.layers import HiddenLayer, NoiseReader, Reader
from plasticity.methods.architecture_choices import (
    CReLUConfig,
    EqualBetaAdamConfig,
    FourierConfig,
    LayerNormConfig,
)
from plasticity.methods.churn import ChurnReduction, ChurnReductionConfig
from plasticity.methods.continual_backprop import ContinualBackprop, ContinualBackpropConfig
from plasticity.methods.grama import GraMa, GraMaConfig
from plasticity.methods.hare_tortoise import HareTortoise, HareTortoiseConfig
from plasticity.methods.l2 import L2, L2Config
from plasticity.methods.l2_init import L2Init, L2InitConfig
from plasticity.methods.magnitude_pruning import MagnitudePruning, MagnitudePruningConfig
from plasticity.methods.nap import NaP, NaPConfig
from plasticity.methods.neuroplastic_expansion import NeuroplasticExpansion, NeuroplasticExpansionConfig
from plasticity.methods.parseval import Parseval, ParsevalConfig
from plasticity.methods.plasticity_injection import PlasticityInjection, PlasticityInjectionConfig
from plasticity.methods.redo import ReDo, ReDoConfig
from plasticity.methods.reset import Reset, ResetConfig
from plasticity.methods.rigl import RigL, RigLConfig
from plasticity.methods.self_normalised_resets import SelfNormalisedResets, SelfNormalisedResetsConfig
from plasticity.methods.shrink_and_perturb import ShrinkAndPerturb, ShrinkAndPerturbConfig
from plasticity.methods.spectral import Spectral, SpectralConfig
from plasticity.methods.upgd import UPGD, UPGDConfig
from plasticity.methods.wasserstein import Wasserstein, WassersteinConfig
from plasticity.methods.weight_clipping import WeightClipping, WeightClippingConfig
from plasticity.metrics import (
    activation_metrics,
    approximate_rank,
    dead_units,
    dormancy_score,
    dormant_units,
    effective_rank,
    numerical_rank,
    saturated_units,
    singular_values,
    spectral_norm,
    srank,
    stable_rank,
    update_ratio,
    weight_metrics,
    zero_fraction,
)
from plasticity.network import Network
from plasticity.optim import UnitAdam, reset_state
from plasticity.probe import ProbeResult, plasticity_probe
from plasticity.registry import (
    METHODS,
    MethodConfig,
    build_intervention,
    method_config,
    method_configs,
    network_options,
)
from plasticity.replacement import replace_units
from plasticity.settings import SettingsError, setting
from plasticity.step_metrics import StepMetrics
from plasticity.utility import UTILITIES, UnitStatistics

__all__ = [
    "INITIALISATIONS",
    "L2",
    "METHODS",
    "UPGD",
    "UTILITIES",
    "CReLU",
    "CReLUConfig",
    "Chain",
    "ChurnReduction",
    "ChurnReductionConfig",
    "ContinualBackprop",
    "ContinualBackpropConfig",
    "EqualBetaAdamConfig",
    "Every",
    "Fourier",
    "FourierConfig",
    "GraMa",
    "GraMaConfig",
    "HareTortoise",
    "HareTortoiseConfig",
    "HiddenLayer",
    "Idle",
    "Intervention",
    "L2Config",
    "L2Init",
    "L2InitConfig",
    "LayerNormConfig",
    "MagnitudePruning",
    "MagnitudePruningConfig",
    "MethodConfig",
    "NaP",
    "NaPConfig",
    "Network",
    "NetworkOptions",
    "NeuroplasticExpansion",
    "NeuroplasticExpansionConfig",
    "NoiseReader",
    "OnChange",
    "OutputCopy",
    "Parseval",
    "ParsevalConfig",
    "PlasticityInjection",
    "PlasticityInjectionConfig",
    "ProbeResult",
    "Randomness",
    "ReDo",
    "ReDoConfig",
    "Reader",
    "Reset",
    "ResetConfig",
    "RigL",
    "RigLConfig",
    "SelfNormalisedResets",
    "SelfNormalisedResetsConfig",
    "SettingsError",
    "ShrinkAndPerturb",
    "ShrinkAndPerturbConfig",
    "Spectral",
    "SpectralConfig",
    "StepMetrics",
    "UPGDConfig",
    "UnitAdam",
    "UnitStatistics",
    "Wasserstein",
    "WassersteinConfig",
    "WeightClipping",
    "WeightClippingConfig",
    "activation_metrics",
    "approximate_rank",
    "attach",
    "build_intervention",
    "copied",
    "dead_units",
    "dormancy_score",
    "dormant_units",
    "effective_rank",
    "gradient_covariance",
    "hessian_eigenvalues",
    "hidden_layers",
    "initialise",
    "landscape_metrics",
    "method_config",
    "method_configs",
    "network_options",
    "numerical_rank",
    "plasticity_probe",
    "rebuild",
    "replace_units",
    "reset_state",
    "saturated_units",
    "schedule",
    "setting",
    "singular_values",
    "spectral_norm",
    "srank",
    "stable_rank",
    "tangent_kernel",
    "uniform_bound",
    "update_ratio",
    "weight_metrics",
    "zero_fraction",
]
