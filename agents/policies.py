"""SB3's policies with plasticity: the same networks, with interventions attached to each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from stable_baselines3.common.policies import ActorCriticCnnPolicy, ActorCriticPolicy, BasePolicy
from stable_baselines3.sac.policies import CnnPolicy as SACCnnPolicy
from stable_baselines3.sac.policies import SACPolicy
from torch import Tensor, nn

from agents.networks import family_of, policy_networks
from agents.optimizers import become_unit_adam, set_betas
from plasticity import (
    INITIALISATIONS,
    Chain,
    Intervention,
    Network,
    SettingsError,
    StepMetrics,
    UnitAdam,
    attach,
    initialise,
    network_options,
    rebuild,
)
from plasticity.native import Tasks
from plasticity.registry import Methods, build_intervention, take_first_weights
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
    target_critic: target networks `leave` replaced units to Polyak averaging, or `sync` to the same replacement.
    optimizer_class: `UnitAdam`, which equals Adam until a unit is reset. What optimizer_kwargs leave out is as SB3 has
        it for the policy: eps 1e-5 for PPO, 1e-8 for SAC (SB3 drops the former where any optimizer_kwargs are given).
    """

    networks: dict[str, Network]
    step_metrics: dict[str, StepMetrics]
    plasticity: nn.ModuleDict
    adam_settings: ClassVar[dict[str, Any] | None] = None  # SB3's for this policy; None: its Adam is made, and asked
    fast: Any = None  # in a rollout: the same function of the networks by hand, see agents/backend.py

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
        adam = None
        if optimizer_class is UnitAdam and self.adam_settings is None:
            super().__init__(*args, **kwargs)
            adam = optimizer_kwargs or {}
        else:
            if optimizer_class is UnitAdam:
                optimizer_kwargs = {**(self.adam_settings or {}), **(optimizer_kwargs or {})}
            super().__init__(*args, optimizer_class=optimizer_class, optimizer_kwargs=optimizer_kwargs, **kwargs)
        self.make_plastic(plasticity, plasticity_seed, adam, init, target_critic)

    def make_plastic(
        self,
        plasticity: Methods,
        seed: int,
        adam: dict[str, Any] | None,
        init: str | None = None,
        target_critic: str = "leave",
    ) -> None:
        """Give the networks what the methods ask of them, and attach the methods.

        adam: settings of the UnitAdam that takes the place of Adam; None leaves the optimizers. The rest is as in the
            constructor.
        """
        self._plastic_parameters: dict[str, Any] = {
            "plasticity": plasticity,
            "plasticity_seed": seed,
            "init": init,
            "target_critic": target_critic,
        }
        options = network_options(plasticity)
        if options.rebuild:
            drafts = self.describe().values()
            rebuild(self, drafts, options)
            for network in drafts:
                network.close()
        if adam is not None:
            become_unit_adam(self, **adam)
        if options.betas is not None:
            set_betas(self, options.betas)
        self.networks = self.describe()
        if init is not None:
            self._initialise(init)
        self.plasticity = nn.ModuleDict()
        self.step_metrics = {}
        for name, network in self.networks.items():
            network.sync_twins = target_critic == "sync"
            self.step_metrics[name] = StepMetrics()
            attach(self.step_metrics[name], network)  # first: it sees the optimizer's own step
            methods = build_intervention(plasticity, network, seed)
            self.plasticity[name] = methods
            attach(_OwnPasses(methods), network)

    def take_first_weights(self) -> None:
        """Let methods that remember the first weights begin anew with those that there are now."""
        methods, seed = self._plastic_parameters["plasticity"], self._plastic_parameters["plasticity_seed"]
        for name, network in self.networks.items():
            chain: Any = self.plasticity[name]
            take_first_weights(chain, methods, network, seed)

    def _initialise(self, init: str) -> None:
        for network in self.networks.values():
            activations = {layer.linear: layer.activation for layer in network.layers}
            for linear in network.linears:
                initialise(linear, init, activations.get(linear))
        for name, target in self.named_children():
            if name.endswith("_target"):
                target.load_state_dict(getattr(self, name.removesuffix("_target")).state_dict())

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return super()._get_constructor_parameters() | self._plastic_parameters

    def named_parameters(self, prefix: str = "", *args: Any, **kwargs: Any) -> Iterator[tuple[str, nn.Parameter]]:
        """The policy's own: SB3 differentiates and clips what is here, and what methods hold is not for that."""
        own = f"{prefix}.plasticity." if prefix else "plasticity."
        every = super().named_parameters(prefix, *args, **kwargs)
        return ((name, parameter) for name, parameter in every if not name.startswith(own))

    def describe(self) -> dict[str, Network]:
        """The policy's networks by name."""
        return policy_networks(self)

    def forward_networks(self, observations: Tensor, actions: Tensor | None) -> None:
        """One forward pass through every network."""
        family_of(self).forward(self, observations, actions)

    @torch.no_grad()
    def activations(self, observations: Tensor, actions: Tensor | None = None) -> dict[str, dict[str, Tensor]]:
        """What every hidden layer puts out on a batch: [network][layer] -> (batch, units) or (batch, channels, ...).

        In evaluation mode, without gradients and without touching what the methods record or any random stream.
        actions: (batch, action_dim), as critics that read them need (SAC, TD3).
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
    """SB3's actor-critic MLP policy (PPO, A2C, TRPO) with plasticity; networks `pi` and `vf`."""

    adam_settings = {"eps": 1e-5}  # noqa: RUF012

    def forward(self, obs: Tensor, deterministic: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Actions, values and log-probabilities, as SB3 has them."""
        if self.fast is None or torch.is_grad_enabled():
            return super().forward(obs, deterministic)
        acted: tuple[Tensor, Tensor, Tensor] = self.fast.act(obs, deterministic)
        return acted


class PlasticActorCriticCnnPolicy(PlasticPolicy, ActorCriticCnnPolicy):
    """SB3's actor-critic CNN policy with plasticity; network `features`, and `pi`, `vf` if they have hidden layers."""


class PlasticSACPolicy(PlasticPolicy, SACPolicy):
    """SB3's SAC policy with plasticity; networks `actor`, `qf0`, `qf1`, ..."""

    def _predict(self, observation: Any, deterministic: bool = False) -> Tensor:
        if self.fast is None or torch.is_grad_enabled():
            return super()._predict(observation, deterministic)
        actions: Tensor = self.fast.act(observation, deterministic)
        return actions

    def obs_to_tensor(self, observation: Any) -> tuple[Any, bool]:
        """As SB3 has it: the observations as a tensor, and whether there are several."""
        several = type(observation) is np.ndarray and observation.shape[1:] == self.observation_space.shape
        if self.fast is None or not several:
            return super().obs_to_tensor(observation)
        return torch.from_numpy(np.array(observation)), True

    def set_training_mode(self, mode: bool) -> None:
        """Of actor and critics; targets are never trained."""
        if self.fast is None:
            super().set_training_mode(mode)
        else:
            self.fast.set_training_mode(mode)


class PlasticSACCnnPolicy(PlasticPolicy, SACCnnPolicy):
    """SB3's SAC policy for images with plasticity; also a network `qf_features`."""


def plastic_policy(policy: type[BasePolicy]) -> type[Any]:
    """The class of an SB3 policy with plasticity: one of those above, or one made of it and `PlasticPolicy`."""
    return policy if issubclass(policy, PlasticPolicy) else with_mixin(PlasticPolicy, policy)


def with_mixin(mixin: type[Any], stock: type[Any]) -> type[Any]:
    """The class of ours that is `mixin` and `stock`, made where there is none yet.

    A class that was made here is saved with an agent as what it is made of, and so loads anywhere.
    """
    for made in mixin.__subclasses__():
        if made.__bases__ == (mixin, stock) and made.__module__.startswith("agents."):
            return made
    text = f"`{stock.__module__}.{stock.__qualname__}` with plasticity."
    return type(f"Plastic{stock.__name__}", (mixin, stock), {"__doc__": text, "__module__": mixin.__module__})


class _OwnPasses(Intervention):
    """A network's methods, at the steps that follow a gradient pass through it.

    TRPO changes the policy once in an update, by a line search; the optimizer's steps after it train the critic alone.
    """

    def __init__(self, methods: Chain):
        self.methods = methods
        self.last: Tensor | None = None  # of what the last hidden layer put out
        self.acts = False

    def before_step(self, network: Network) -> None:
        latest = network.activations.get(network.layers[-1].name)
        self.acts = latest is None or latest is not self.last
        if self.acts:
            self.last = latest
            self.methods.before_step(network)

    def after_step(self, network: Network) -> None:
        if self.acts:
            self.methods.after_step(network)

    def unattended(self, network: Network) -> Tasks | None:
        """See `plasticity.intervention.unattended`; each of such steps follows a pass."""
        return self.methods.unattended(network)

    def attend(self, network: Network) -> None:
        """Steps have been taken."""
        self.methods.attend(network)
