"""Keep a network able to learn: methods against loss of plasticity, and measures of it, for any torch training loop.

network = Network("net", hidden_layers(model), [optimizer])
attach(ContinualBackprop(network.layers, replacement_rate=1e-4, maturity=1000), network)
"""

from plasticity.activations import CReLU, Fourier
from plasticity.architecture import NetworkOptions, rebuild
from plasticity.describe import hidden_layers
from plasticity.initialisation import INITIALISATIONS, initialise, uniform_bound
from plasticity.intervention import Chain, Every, Idle, Intervention, OnChange, Randomness, attach, schedule
from plasticity.layers import HiddenLayer, NoiseReader, Reader
from plasticity.methods.continual_backprop import ContinualBackprop, ContinualBackpropConfig
from plasticity.methods.l2 import L2, L2Config
from plasticity.methods.redo import ReDo, ReDoConfig
from plasticity.methods.shrink_and_perturb import ShrinkAndPerturb, ShrinkAndPerturbConfig
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
    srank,
    stable_rank,
    update_ratio,
    weight_metrics,
    zero_fraction,
)
from plasticity.network import Network
from plasticity.optim import UnitAdam, reset_state
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
    "UTILITIES",
    "CReLU",
    "Chain",
    "ContinualBackprop",
    "ContinualBackpropConfig",
    "Every",
    "Fourier",
    "HiddenLayer",
    "Idle",
    "Intervention",
    "L2Config",
    "MethodConfig",
    "Network",
    "NetworkOptions",
    "NoiseReader",
    "OnChange",
    "Randomness",
    "ReDo",
    "ReDoConfig",
    "Reader",
    "SettingsError",
    "ShrinkAndPerturb",
    "ShrinkAndPerturbConfig",
    "StepMetrics",
    "UnitAdam",
    "UnitStatistics",
    "activation_metrics",
    "approximate_rank",
    "attach",
    "build_intervention",
    "dead_units",
    "dormancy_score",
    "dormant_units",
    "effective_rank",
    "hidden_layers",
    "initialise",
    "method_config",
    "method_configs",
    "network_options",
    "numerical_rank",
    "rebuild",
    "replace_units",
    "reset_state",
    "saturated_units",
    "schedule",
    "setting",
    "singular_values",
    "srank",
    "stable_rank",
    "uniform_bound",
    "update_ratio",
    "weight_metrics",
    "zero_fraction",
]
