"""Methods that are all in the architecture or the optimizer: CReLU, Fourier features, LayerNorm, equal-beta Adam."""

from __future__ import annotations

from dataclasses import dataclass

from plasticity.activations import CReLU, Fourier
from plasticity.architecture import NetworkOptions, require
from plasticity.intervention import Idle
from plasticity.network import Network
from plasticity.settings import check, setting


@dataclass(frozen=True)
class CReLUConfig:
    """Concatenated ReLUs, [relu(z), relu(-z)], as the activation of all hidden layers.

    Abbas et al., "Loss of plasticity in continual deep reinforcement learning", CoLLAs 2023, arXiv 2303.07507. Each
    layer gets half as many units, so that its width, which the next layer reads, stays: about half the weights of the
    hidden layers are left.
    """

    def options(self) -> NetworkOptions:
        """What it asks of a network before training."""
        return NetworkOptions(activation=CReLU)

    def build(self, network: Network, seed: int) -> Idle:
        """Nothing is left to do; raises `ValueError` where the network has another activation."""
        require(network, self.options(), "crelu")
        return Idle()


@dataclass(frozen=True)
class FourierConfig:
    """Deep Fourier features, [sin(z), cos(z)], as the activation of all hidden layers.

    Lewandowski, Schuurmans & Machado, "Plastic learning with deep Fourier features", ICLR 2025, arXiv 2410.20634. Each
    layer gets half as many units, so that its width stays, and keeps the agent's initialisation (whether the paper's
    differs we could not verify). The paper combines the features with regularisation: add `l2` or another such method.
    """

    def options(self) -> NetworkOptions:
        """What it asks of a network before training."""
        return NetworkOptions(activation=Fourier)

    def build(self, network: Network, seed: int) -> Idle:
        """Nothing is left to do; raises `ValueError` where the network has another activation."""
        require(network, self.options(), "fourier")
        return Idle()


@dataclass(frozen=True)
class LayerNormConfig:
    """Layer normalisation before each hidden activation, with a gain and an offset for each unit.

    Ba, Kiros & Hinton, arXiv 1607.06450; against loss of plasticity: Lyle et al., "Understanding plasticity in neural
    networks", ICML 2023, arXiv 2303.01486, and "Disentangling the causes of plasticity loss in neural networks", arXiv
    2402.18762. Convolutions are normalised over channels and positions together (`GroupNorm(1, channels)`).
    """

    def options(self) -> NetworkOptions:
        """What it asks of a network before training."""
        return NetworkOptions(layer_norm=True)

    def build(self, network: Network, seed: int) -> Idle:
        """Nothing is left to do; raises `ValueError` where a layer is not normalised."""
        require(network, self.options(), "layer_norm")
        return Idle()


@dataclass(frozen=True)
class EqualBetaAdamConfig:
    """Adam with equal betas, the "ns" of Dohare et al., "Loss of plasticity in deep continual learning", Nature 632:768
    (2024): sudden large gradients then reach numerator and denominator of the step alike.

    beta: both of Adam's betas. This method replaces those that the agent sets.
    """

    beta: float = setting(0.99, within="[0, 1)")

    def __post_init__(self) -> None:
        check(self)

    def options(self) -> NetworkOptions:
        """What it asks of the optimizer before training."""
        return NetworkOptions(betas=(self.beta, self.beta))

    def build(self, network: Network, seed: int) -> Idle:
        """Nothing is left to do; raises `ValueError` where an optimizer of the network has other betas, or none."""
        require(network, self.options(), "ns")
        return Idle()
