"""SB3's policies with plasticity: the same networks, with interventions attached to each."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import torch
from stable_baselines3.common.policies import ActorCriticCnnPolicy, ActorCriticPolicy
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.sac.policies import CnnPolicy as SACCnnPolicy
from stable_baselines3.sac.policies import SACPolicy
from torch import Tensor, nn

from agents.networks import actor_critic_networks, sac_networks
from plasticity import INITIALISATIONS, Network, SettingsError, StepMetrics, UnitAdam, attach, initialise
from plasticity.registry import Methods, build_intervention
from plasticity.settings import unknown

if TYPE_CHECKING:
    from stable_baselines3.common.policies import BasePolicy as _Base
else:
    _Base = object


class PlasticPolicy(_Base):
    """Mixin for SB3 policies: describes the networks, then attaches the methods to each.

    The methods are the submodule `plasticity`, one entry a network, so that whatever saves, loads or moves the policy
    does the same to them.

    plasticity: the methods, as `plasticity.method_configs` takes them.
    plasticity_seed: of the methods' own random streams; each network has a stream of its own.
    init: draw all weights anew: `lecun`, `kaiming`, `xavier` or `default`; None keeps SB3's initialisation.
    target_critic: SAC's target critics `leave` replaced units to Polyak averaging, or `sync` to the same replacement.
    optimizer_class: `UnitAdam`, which equals Adam until a unit is reset. Its eps is SB3's own for the algorithm (1e-5
        for PPO, 1e-8 for SAC), also where other optimizer_kwargs are given (SB3 would drop it then).
    """

    adam_eps = 1e-8
    networks: dict[str, Network]
    step_metrics: dict[str, StepMetrics]
    plasticity: nn.ModuleDict

    def __init__(
        self,
        *args: Any,
        plasticity: Methods = None,
        plasticity_seed: int = 0,
        init: str | None = None,
        target_critic: str = "leave",
        optimizer_class: type[torch.optim.Optimizer] = UnitAdam,
        optimizer_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ):
        allowed = [name for name in INITIALISATIONS if name != "network"]
        if init is not None and init not in allowed:
            raise SettingsError([unknown("init", init, allowed)])
        if target_critic not in ("leave", "sync"):
            raise SettingsError([unknown("target_critic", target_critic, ["leave", "sync"])])
        self._plastic_parameters: dict[str, Any] = {
            "plasticity": plasticity,
            "plasticity_seed": plasticity_seed,
            "init": init,
            "target_critic": target_critic,
        }
        if optimizer_class is UnitAdam:
            optimizer_kwargs = {"eps": self.adam_eps, **(optimizer_kwargs or {})}
        super().__init__(*args, optimizer_class=optimizer_class, optimizer_kwargs=optimizer_kwargs, **kwargs)

    def _build(self, lr_schedule: Schedule) -> None:
        super()._build(lr_schedule)  # type: ignore[misc]
        self.networks = self.describe()
        if self._plastic_parameters["init"] is not None:
            self._initialise(self._plastic_parameters["init"])
        self.plasticity = nn.ModuleDict()
        self.step_metrics = {}
        for name, network in self.networks.items():
            network.sync_twins = self._plastic_parameters["target_critic"] == "sync"
            self.step_metrics[name] = StepMetrics()
            attach(self.step_metrics[name], network)  # first: it sees the optimizer's own step
            intervention = build_intervention(
                self._plastic_parameters["plasticity"], network, self._plastic_parameters["plasticity_seed"]
            )
            self.plasticity[name] = intervention
            attach(intervention, network)

    def _initialise(self, init: str) -> None:
        for network in self.networks.values():
            activations = {layer.linear: layer.activation for layer in network.layers}
            for linear in network.linears:
                initialise(linear, init, activations.get(linear))

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return super()._get_constructor_parameters() | self._plastic_parameters

    def describe(self) -> dict[str, Network]:
        """The policy's networks by name."""
        raise NotImplementedError

    def forward_networks(self, observations: Tensor, actions: Tensor | None) -> None:
        """One forward pass through every network."""
        raise NotImplementedError

    @torch.no_grad()
    def activations(self, observations: Tensor, actions: Tensor | None = None) -> dict[str, dict[str, Tensor]]:
        """What every hidden layer puts out on a batch: [network][layer] -> (batch, units) or (batch, channels, ...).

        In evaluation mode, without gradients and without touching what the methods record or any random stream.
        actions: (batch, action_dim), as the critics of SAC need them.
        """
        training = self.training
        self.set_training_mode(False)
        try:
            with ExitStack() as stack:
                seen = {name: stack.enter_context(network.watch()) for name, network in self.networks.items()}
                self.forward_networks(observations, actions)
        finally:
            self.set_training_mode(training)
        return seen


class PlasticActorCriticPolicy(PlasticPolicy, ActorCriticPolicy):
    """SB3's actor-critic MLP policy (PPO, A2C) with plasticity; networks `pi` and `vf`."""

    adam_eps = 1e-5

    def describe(self) -> dict[str, Network]:
        return actor_critic_networks(self)

    def forward_networks(self, observations: Tensor, actions: Tensor | None) -> None:
        features = self.extract_features(observations)
        if isinstance(features, tuple):
            self.mlp_extractor.forward_actor(features[0])
            self.mlp_extractor.forward_critic(features[1])
        else:
            self.mlp_extractor(features)


class PlasticActorCriticCnnPolicy(PlasticActorCriticPolicy, ActorCriticCnnPolicy):
    """SB3's actor-critic CNN policy with plasticity; network `features`, and `pi`, `vf` if they have hidden layers."""


class PlasticSACPolicy(PlasticPolicy, SACPolicy):
    """SB3's SAC policy with plasticity; networks `actor`, `qf0`, `qf1`, ..."""

    def describe(self) -> dict[str, Network]:
        return sac_networks(self)

    def _initialise(self, init: str) -> None:
        super()._initialise(init)
        self.critic_target.load_state_dict(self.critic.state_dict())

    def forward_networks(self, observations: Tensor, actions: Tensor | None) -> None:
        if actions is None:
            raise ValueError("the critics of SAC need actions as well as observations")
        self.actor.get_action_dist_params(observations)
        self.critic(observations, actions)


class PlasticSACCnnPolicy(PlasticSACPolicy, SACCnnPolicy):
    """SB3's SAC policy for images with plasticity; also a network `qf_features`."""
