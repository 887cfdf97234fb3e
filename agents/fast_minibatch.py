"""A gradient step of PPO up to its gradients, for `agents.fast_ppo`; and several of them that nobody attends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from agents import fast_losses as losses
from agents.fast_mlp import INPUTS, MLPPass, PlainMLP
from agents.fast_steps import ALL_TAKEN, OPEN, Offer, Shift, Unattended, offer, shift
from plasticity import Network
from plasticity.native import Work, together


class Minibatch:
    """Room for the gradients of a minibatch of `rows`: the policy's on one thread, the value function's on another.

    networks, mlps: of both. log_std: of a Gaussian, and room for its gradient. like: such a minibatch, tensors in the
    order of `agents.fast_ppo`'s rollout.
    """

    def __init__(
        self,
        networks: tuple[Network, Network],
        mlps: tuple[PlainMLP, PlainMLP],
        log_std: tuple[Tensor | None, Tensor | None],
        like: tuple[Tensor, ...],
    ):
        rows = len(like[0])
        self._networks, self._log_std = networks, log_std
        self._pi, self._vf = pi, vf = MLPPass(mlps[0], rows), MLPPass(mlps[1], rows)
        own = [] if log_std[1] is None else [log_std[1]]
        self.clip = losses.Clip(([*mlps[0].gradients, *own], mlps[1].gradients))
        self._policy = losses.PolicyLoss(pi.outputs[0], pi.to_outputs[0], *log_std)
        self._value = losses.ValueLoss(vf.outputs[0], vf.to_outputs[0])
        of_policy, of_value = (
            [(of.native.forward, of.table), task, (of.native.backward, of.table), measure]
            for of, task, measure in zip(
                (pi, vf), (self._policy.task, self._value.task), self.clip.measure, strict=True
            )
        )
        self._value_work = Work(*of_value)
        self._policy_work = {False: Work(*of_policy), True: Work(self._policy.normalize, *of_policy)}
        told, kl = (self._policy.told, self._value.told), losses.Numbers._fields.index("kl")
        clip = self.clip
        self._steps = {
            normalized: Unattended(
                *((work, self._value_work), clip.scale, clip.squares, clip.factor, told, kl),
                self._shifts(like, normalized),
            )
            for normalized, work in self._policy_work.items()
        }
        self._offered: Offer | None = None  # for steps that nobody attends; and the latest one
        self._latest: Offer | None = None
        self._taken, self._last = 0, like  # so many of them, of which nobody was told yet, and the last one's minibatch
        self._normalized = False

    def settings(self, policy: tuple[float, float], value: tuple[float, float], normalize: bool) -> None:
        """Clip range and coefficient of either loss, and whether advantages are normalised, from now on."""
        self._policy.settings(*policy)
        self._value.settings(*value)
        self._normalized = normalize and self._pi.rows > 1

    def __call__(self, batch: tuple[Tensor, ...]) -> tuple[float, ...]:
        """Work out the gradients; the policy's numbers and the value loss."""
        self._prepare(batch)
        together(self._policy_work[self._normalized], self._value_work)
        self._tell(batch)
        for one in (self._pi, self._vf):
            one.mlp.give_gradients()
        log_std, to_log_std = self._log_std
        if log_std is not None:
            log_std.grad = to_log_std
        return (*self._policy.numbers, self._value.loss)

    def unattended(
        self, batches: Sequence[tuple[Tensor, ...]], optimizer: Any, max_norm: float, most_kl: float
    ) -> tuple[list[tuple[float, ...]], bool]:
        """Take steps of these, of which the first have as many rows; what is told of each, and whether the last was not
        taken. None, where hooks are needed. In the end `settle` them."""
        steps = self._steps[self._normalized]
        if self._offered is None:
            if (offered := offer(optimizer, self._latest)) is None:
                return [], True
            self._offered, self._latest, self._taken = offered, offered, 0
            steps.begin(offered, max_norm, most_kl)
        self._prepare(batches[0])
        told, ending = steps(sum(len(batch[0]) == self._pi.rows for batch in batches))
        self._taken, self._last = self._taken + len(told) - (ending == OPEN), batches[len(told) - 1]
        if ending != ALL_TAKEN:
            self.settle(optimizer)
        return told, ending == OPEN

    def settle(self, optimizer: Any) -> None:
        """Tell networks of the latest pass, and all who watch of steps that nobody attended."""
        if (offered := self._offered) is not None:
            self._offered = None
            self._tell(self._last)
            if self._taken:
                offered.attend(optimizer, self._taken)

    def _prepare(self, batch: tuple[Tensor, ...]) -> None:
        observations, actions, old_values, old_log_probs, advantages, returns = batch
        for own, network in zip((self._pi, self._vf), self._networks, strict=True):
            own.read(observations)
            own.keep_what_is_recorded(network)
        self._policy.prepare(actions, old_log_probs, advantages, self._normalized)
        self._value.prepare(old_values, returns)

    def _shifts(self, batch: tuple[Tensor, ...], normalized: bool) -> list[Shift]:
        observations, actions, old_values, old_log_probs, advantages, returns = batch
        return [
            *(shift(own.table, INPUTS, observations) for own in (self._pi, self._vf)),
            *self._policy.shifts(actions, old_log_probs, advantages, normalized),
            *self._value.shifts(old_values, returns),
        ]

    def _tell(self, batch: tuple[Tensor, ...]) -> None:
        """What was worked out, of this minibatch at last."""
        for own, network in zip((self._pi, self._vf), self._networks, strict=True):
            own.read(batch[0])
            own.tell(network)
