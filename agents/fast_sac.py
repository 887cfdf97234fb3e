"""SAC's actions and gradient steps without autograd, for plain MLPs on the CPU; everything else is SB3's.

A gradient step draws the same transitions and the same noise as SB3's and logs the same numbers, optimizers are stepped
with the hooks they have, and networks are told what hooks would have recorded, so that no method knows which update
runs. Gradients and parameters differ from SB3's by rounding; the actions of a rollout are those of its
modules on one thread, to the last bit.

What SB3 works out and nobody reads is left out: gradients of critics' weights and of observations in the actor's loss.
The actor looks at both ends of the transitions in one pass.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.distributions import SquashedDiagGaussianDistribution
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.sac.policies import LOG_STD_MAX, LOG_STD_MIN
from torch import Tensor, nn

from agents.fast_mlp import ACTIVATIONS, Exact, MLPPass, PlainMLP, acting, in_rows, is_free, why_not_plain
from agents.fast_sac_losses import CriticsLoss, Polyak, Squashed
from agents.policies import PlasticSACPolicy
from agents.replay import Transitions
from plasticity import Network
from plasticity.native import NO_WORK, Table, Work, addressable, table, together


def why_not_fast(model: Any) -> str | None:
    """Why SB3's own update has to be used for this SAC agent, or None."""
    policy = model.policy
    if type(policy) is not PlasticSACPolicy:
        return f"the policy is {type(policy).__name__}, not MlpPolicy"
    if model.use_sde:
        return "gSDE is used"
    actor: Any = policy.actor
    critic: Any = policy.critic
    target: Any = policy.critic_target
    for part in (actor, critic, target):
        if type(part.features_extractor) is not FlattenExtractor:
            return f"observations go through {type(part.features_extractor).__name__}"
    if not isinstance(policy.observation_space, spaces.Box) or len(policy.observation_space.shape) != 1:
        return f"observations are not vectors but {policy.observation_space}"
    if type(actor.action_dist) is not SquashedDiagGaussianDistribution:
        return f"actions are drawn from {type(actor.action_dist).__name__}"
    names = [f"qf{i}" for i in range(len(critic.q_networks))]
    if set(policy.networks) != {"actor", *names}:
        return "actor and critics are not networks with hidden layers each"
    if model.log_ent_coef is not None and not is_free(model.log_ent_coef):
        return "log_ent_coef is frozen, or something else watches its gradient"
    reason = why_not_plain(policy.networks["actor"], [*actor.latent_pi], [actor.mu, actor.log_std])
    for name, own, other in zip(names, critic.q_networks, target.q_networks, strict=True):
        network = policy.networks[name]
        reason = reason or why_not_plain(network, [*own[:-1]], [own[-1]]) or _why_not_target(network, [*other])
    parameters = [p for chain in _chains(policy) for module in chain for p in module.parameters()]
    if reason is None and not addressable(*parameters):
        return "actor, critics and targets are of different types"
    if reason is None and {id(p) for p in policy.parameters()} != {id(p) for p in parameters}:
        return "the policy has parameters outside its networks"
    return reason


def _why_not_target(network: Network, target: list[nn.Module]) -> str | None:
    """target: the modules of the network that follows this one, in order."""
    twins = [network.twins[layer.name] for layer in network.layers]
    for module in target:
        if type(module) not in (nn.Linear, *ACTIVATIONS) or network.has_foreign_hooks(module):
            return f"something else watches or changes what the target of network {network.name} computes"
        if not all(p.device.type == "cpu" and p.is_contiguous() for p in module.parameters()):
            return f"the target of network {network.name} is not dense or not on the CPU"
    if target[:-1] != [part for twin in twins for part in (twin.linear, twin.activation)]:
        return f"the target of network {network.name} has other layers than Linear and activation"
    return None


def _chains(policy: Any) -> list[list[nn.Module]]:
    """The modules of actor, critics and targets, in order."""
    actor, q = policy.actor, [*policy.critic.q_networks, *policy.critic_target.q_networks]
    return [[*actor.latent_pi, actor.mu, actor.log_std], *map(list, q)]


class FastSAC:
    """The policy and its gradient steps; made anew whenever the policy's modules are."""

    def __init__(self, policy: PlasticSACPolicy):
        self.policy = policy
        actor: Any = policy.actor
        critic: Any = policy.critic
        target: Any = policy.critic_target
        self.networks = [policy.networks[f"qf{i}"] for i in range(len(critic.q_networks))]
        self.actor = PlainMLP(policy.networks["actor"].layers, [actor.mu, actor.log_std])
        self.critics, self.targets = [], []
        for network, own, other in zip(self.networks, critic.q_networks, target.q_networks, strict=True):
            twins = [network.twins[layer.name] for layer in network.layers]
            self.critics.append(PlainMLP(network.layers, [own[-1]]))
            self.targets.append(PlainMLP(twins, [other[-1]], trained=False))
        self.epsilon: float = actor.action_dist.epsilon
        self.polyak = Polyak(*([p for mlp in mlps for p in mlp.parameters] for mlps in (self.critics, self.targets)))
        self.dtype = self.actor.parameters[0].dtype
        self._modes = [vars(policy), *(vars(module) for part in (actor, critic) for module in part.modules())]
        self._acting: dict[int, MLPPass | Exact] = {}
        self._steps: dict[int, _Step] = {}

    def __deepcopy__(self, memo: Any) -> None:
        """A copy of a policy makes its own."""

    def set_training_mode(self, mode: bool) -> None:
        """`SACPolicy.set_training_mode`, in a tenth of its time: three calls a step are more than the actions take."""
        for module in self._modes:
            module["training"] = mode

    def act(self, observations: Tensor, deterministic: bool) -> Tensor:
        """Actions between -1 and 1, (batch, actions), as `SACPolicy._predict` returns them."""
        x = in_rows(observations.float().to(self.dtype))
        if (rows := len(x)) not in self._acting:
            self._acting[rows] = acting(self.actor, rows)
        mean, log_std = self._acting[rows](x)
        if deterministic:
            return mean.tanh()
        noise = torch.empty_like(mean).normal_()
        return noise.mul_(log_std.clamp_(LOG_STD_MIN, LOG_STD_MAX).exp_()).add_(mean).tanh_()

    @torch.no_grad()
    def train(self, model: Any, gradient_steps: int, batch_size: int) -> None:
        """`SAC.train`: the gradient steps, and the same entries in the log."""
        self.set_training_mode(True)
        optimizers = [model.actor.optimizer, model.critic.optimizer]
        if model.ent_coef_optimizer is not None:
            optimizers.append(model.ent_coef_optimizer)
        model._update_learning_rate(optimizers)
        if batch_size not in self._steps:
            self._steps[batch_size] = _Step(self, batch_size)
        step = self._steps[batch_size]
        logged = []
        for count in range(gradient_steps):
            logged.append(step(model))
            if count % model.target_update_interval == 0:
                self.polyak(model.tau)
        model._n_updates += gradient_steps
        model.logger.record("train/n_updates", model._n_updates, exclude="tensorboard")
        names = ["ent_coef", "actor_loss", "critic_loss", "ent_coef_loss"][: len(logged[0])]
        for name, numbers in zip(names, zip(*logged, strict=True), strict=True):
            model.logger.record(f"train/{name}", np.mean(numbers))


class _Step:
    """Room for gradient steps on batches of `rows` transitions."""

    def __init__(self, fast: FastSAC, rows: int):
        self.policy, self.networks, self.rows = fast.policy, fast.networks, rows
        like = fast.actor.parameters[0]
        width, self.size = fast.critics[0].hidden[0].in_features, fast.actor.heads[0].out_features
        pairs = like.new_empty(2 * rows, width)  # observations and actions; below them the next ones
        self.now, self.later, self.seen = pairs[:rows], pairs[rows:], pairs[:, : width - self.size]
        self.actor = MLPPass(fast.actor, 2 * rows)
        self.first, self.second = (MLPPass(fast.actor, rows, self.actor, start) for start in (0, rows))
        self.critics, self.targets = ([MLPPass(mlp, rows) for mlp in mlps] for mlps in (fast.critics, fast.targets))
        self.squashed = Squashed(2 * rows, self.size, fast.epsilon, like)
        targets, values = ([q.outputs[0] for q in passes] for passes in (self.targets, self.critics))
        self.loss = CriticsLoss(targets, values, [q.to_outputs[0] for q in self.critics])
        self.actions, self.to_actions = (like.new_empty(rows, self.size) for _ in range(2))
        self.rewards, self.dones, self.discounts = (like.new_empty(rows, 1) for _ in range(3))
        self._held: list[Tensor] = []
        self.transitions = Transitions(pairs, self.actions, self.rewards, self.dones)
        self.first.read(self.seen[:rows])
        self.second.read(self.seen[rows:])
        for own, target in zip(self.critics, self.targets, strict=True):
            own.read(self.now)
            target.read(self.later)
        self._plan()

    def _plan(self) -> None:
        """What either thread does: half of a batch, or of the critics, or of the gradients of an actor's layers."""
        native, tables = self.actor.native, [q.table for q in self.critics]
        parts = ((self.first, 0), (self.second, self.rows))
        self.look = [Work((native.forward, p.table), self.squashed.task(p.outputs, first)) for p, first in parts]
        self.both, self.again, self.back, self.to_act = [], [], [], []
        gradients = [self._action_gradient(place) for place in range(len(tables))]
        for half in (slice(0, None, 2), slice(1, None, 2)):
            again = [(native.forward, own) for own in tables[half]]
            self.again.append(Work(*again))
            self.both.append(Work(*((native.forward, q.table) for q in self.targets[half]), *again))
            self.back.append(Work(*((native.backward, own) for own in tables[half])))
            self.to_act.append(Work(*((native.input_gradient, own) for own in gradients[half])))
        own = self.first.table
        self.from_heads = Work((native.from_heads, own))
        self.actors = [Work((part, own)) for part in (native.backward_above, native.backward_below)]

    def _action_gradient(self, place: int) -> Table:
        """What `input_gradient` reads: of the actions, in the rows where this critic's value is the least."""
        room = torch.empty_like(self.to_actions)
        self._held.append(room)
        chosen, count = self.loss.chosen[place].data_ptr(), self.loss.counts[place].data_ptr()
        first = self.seen.shape[1]
        ends = self.to_actions.data_ptr(), room.data_ptr()
        return table([self.critics[place].table.ctypes.data, chosen, count, -1.0 / self.rows, first, *ends])

    def __call__(self, model: Any) -> list[float]:
        """Temperature, loss of the actor and of the critics; and of the temperature, where that is learned."""
        rows, squashed = self.rows, self.squashed
        discounts = self._draw(model)
        actor = self.policy.networks["actor"]
        self.first.keep_what_is_recorded(actor)
        squashed.draw(batches=2)
        together(*self.look)
        log_prob, next_log_prob = squashed.log_prob[:rows], squashed.log_prob[rows:]
        temperature, *own_loss = _temperature(model, log_prob)

        self.now[:, -self.size :].copy_(self.actions)
        self.later[:, -self.size :].copy_(squashed.actions[rows:])
        for critic, network in zip(self.critics, self.networks, strict=True):
            critic.keep_what_is_recorded(network)
        together(*self.both)
        critic_loss = self.loss.critics(self.rewards, self.dones, discounts, next_log_prob, temperature)
        together(*self.back)
        for critic, network in zip(self.critics, self.networks, strict=True):
            critic.mlp.give_gradients()
            critic.tell(network)
        model.critic.optimizer.step()

        self.now[:, -self.size :].copy_(squashed.actions[:rows])
        together(*self.again)
        actor_loss = self.loss.actor(log_prob, temperature)
        together(*self.to_act)
        squashed.slopes(self.actor.outputs[1], self.to_actions, temperature / rows, self.first.to_outputs)
        together(NO_WORK, self.from_heads)
        together(*self.actors)
        self.first.mlp.give_gradients()
        self.first.tell(actor)
        model.actor.optimizer.step()
        return [temperature, actor_loss, critic_loss, *own_loss]

    def _draw(self, model: Any) -> Tensor | float:
        """Take a batch from the replay buffer; the discounts, (rows, 1) or of all."""
        buffer, normaliser = model.replay_buffer, model._vec_normalize_env
        if self.transitions.fits(buffer, normaliser):
            self.transitions(buffer)
            return float(model.gamma)
        batch = buffer.sample(self.rows, env=normaliser)
        self.seen[: self.rows].copy_(batch.observations.float())
        self.seen[self.rows :].copy_(batch.next_observations.float())
        self.actions.copy_(batch.actions)
        self.rewards.copy_(batch.rewards)
        self.dones.copy_(batch.dones)
        return float(model.gamma) if batch.discounts is None else self.discounts.copy_(batch.discounts)


def _temperature(model: Any, log_prob: Tensor) -> list[float]:
    """The entropy's coefficient; where it is learned also its loss, and its optimizer takes a step."""
    if model.ent_coef_optimizer is None:
        return [float(model.ent_coef_tensor)]
    logarithm = model.log_ent_coef
    found, slope = float(logarithm.exp()), -(float(log_prob.mean()) + model.target_entropy)
    loss = float(logarithm) * slope
    if logarithm.grad is None:
        logarithm.grad = torch.empty_like(logarithm)
    logarithm.grad.fill_(slope)
    model.ent_coef_optimizer.step()
    return [found, loss]
