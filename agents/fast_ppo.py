"""PPO's rollout and update without autograd, for plain MLPs on the CPU; everything else is Stable-Baselines3's.

The update draws the same minibatches as SB3's and logs the same numbers, optimizers are stepped with the hooks they
have, and networks are told what hooks would have recorded, so that no method knows which update runs. Gradients and
parameters differ from SB3's by rounding; what the policy does in a rollout is what its modules
do on one thread, to the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.distributions import CategoricalDistribution, DiagGaussianDistribution
from stable_baselines3.common.utils import explained_variance
from torch import Tensor

from agents import fast_losses as losses
from agents.fast_minibatch import Minibatch
from agents.fast_mlp import Exact, MLPPass, PlainMLP, act_together, acting, in_rows, is_free, why_not_plain
from agents.policies import PlasticActorCriticPolicy
from plasticity import Network, UnitAdam
from plasticity.native import NATIVE, Table, Work, table, together

NETWORKS = ("pi", "vf")
TRIES = 4  # steps in a row whose hooks have to be called, until for the rest of an update nobody is asked any more


def why_not_fast(model: Any) -> str | None:
    """Why SB3's own update has to be used for this PPO agent, or None."""
    policy = model.policy
    if type(policy) is not PlasticActorCriticPolicy:
        return f"the policy is {type(policy).__name__}, not MlpPolicy"
    if set(policy.networks) != set(NETWORKS) or not policy.share_features_extractor:
        return "policy and value function are not two networks with hidden layers each"
    if policy.use_sde:
        return "gSDE is used"
    if type(model.rollout_buffer) is not RolloutBuffer:
        return f"the rollout buffer is {type(model.rollout_buffer).__name__}, not RolloutBuffer"
    if not isinstance(policy.observation_space, spaces.Box) or len(policy.observation_space.shape) != 1:
        return f"observations are not vectors but {policy.observation_space}"
    if type(policy.action_dist) not in (DiagGaussianDistribution, CategoricalDistribution):
        return f"actions are drawn from {type(policy.action_dist).__name__}"
    log_std = getattr(policy, "log_std", None)
    if log_std is not None and not is_free(log_std):
        return "log_std is frozen, or something else watches its gradient"
    pi, vf = (policy.networks[name] for name in NETWORKS)
    body = policy.mlp_extractor
    reason = why_not_plain(pi, [*body.policy_net], [policy.action_net]) or why_not_plain(
        vf, [*body.value_net], [policy.value_net]
    )
    own = {id(p) for network in (pi, vf) for p in network.parameters(log_std=True)}
    if reason is None and any(id(p) not in own for p in policy.parameters()):
        return "the policy has parameters outside its two networks"
    return reason


class FastPPO:
    """The policy and its update; made anew whenever the policy's modules are."""

    def __init__(self, policy: PlasticActorCriticPolicy):
        self.policy = policy
        self.pi = PlainMLP(policy.networks["pi"].layers, [policy.action_net])  # type: ignore[list-item]
        self.vf = PlainMLP(policy.networks["vf"].layers, [policy.value_net])
        self.log_std: Tensor | None = getattr(policy, "log_std", None)
        self.to_log_std = None if self.log_std is None else torch.zeros_like(self.log_std)
        self.dtype = self.pi.parameters[0].dtype
        self._acting: dict[int, tuple[MLPPass | Exact, ...]] = {}
        self._spreads: dict[bytes, tuple[Tensor, Tensor, Tensor]] = {}
        self._minibatches: dict[int, Minibatch] = {}

    def __deepcopy__(self, memo: Any) -> None:
        """A copy of a policy makes its own."""

    # -- rollouts

    def act(self, observations: Tensor, deterministic: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Actions, values (batch, 1) and log-probabilities (batch,), as `ActorCriticPolicy.forward` returns them."""
        x = in_rows(observations.float().to(self.dtype))
        if (rows := len(x)) not in self._acting:
            self._acting[rows] = acting(self.pi, rows), acting(self.vf, rows)
        (head,), (values,) = act_together(self._acting[rows], x)
        if self.log_std is None:
            distribution = self.policy.action_dist.proba_distribution(head)
            actions = distribution.get_actions(deterministic=deterministic)
            return actions, values.clone(), distribution.log_prob(actions)
        std, twice_variance, log = self._spread(self.log_std)
        noise = torch.zeros_like(head) if deterministic else torch.empty_like(head).normal_()
        actions = noise.mul_(std).add_(head)
        log_prob = (actions - head).square_().neg_().div_(twice_variance).sub_(log).sub_(losses.HALF_LOG_2_PI)
        return actions, values.clone(), log_prob.sum(1)

    def _spread(self, log_std: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The standard deviation, twice its square and its logarithm, as SB3 works them out; mostly known already."""
        if (key := log_std.numpy().tobytes()) not in self._spreads:
            std = log_std.exp()
            self._spreads = {key: (std, 2 * std**2, std.log())}
        return self._spreads[key]

    # -- update

    @torch.no_grad()
    def train(self, model: Any) -> None:
        """`PPO.train`: all epochs over the rollout, and the same entries in the log."""
        policy = self.policy
        policy.set_training_mode(True)
        model._update_learning_rate(policy.optimizer)
        clip = float(model.clip_range(model._current_progress_remaining))
        clip_values = math.inf
        if model.clip_range_vf is not None:
            clip_values = float(model.clip_range_vf(model._current_progress_remaining))
        data = _Rollout(model.rollout_buffer, self.dtype)
        max_norm = float(model.max_grad_norm)
        settings = (clip, float(model.ent_coef)), (clip_values, float(model.vf_coef)), model.normalize_advantage
        for minibatch in self._minibatches.values():
            minibatch.settings(*settings)
        logged: list[tuple[float, ...]] = []
        kls: list[float] = []
        most_kl = math.inf if model.target_kl is None else 1.5 * model.target_kl
        go_on, tries, latest = True, TRIES, None
        optimizer: Any = policy.optimizer
        with _held_still([*policy.networks.values(), optimizer]), self._settled(optimizer):
            for epoch in range(model.n_epochs):
                kls = []
                left = data.minibatches(model.batch_size)
                while left and go_on:
                    if (rows := len(left[0][0])) not in self._minibatches:
                        self._minibatches[rows] = self._minibatch(left[0])
                        self._minibatches[rows].settings(*settings)
                    minibatch = self._minibatches[rows]
                    told, is_open = list[tuple[float, ...]](), True
                    if tries and minibatch is latest:  # methods look at where the latest pass wrote
                        told, is_open = minibatch.unattended(left, optimizer, max_norm, most_kl)
                        tries = TRIES if told else tries - 1
                    if not told:
                        if latest is not None:
                            latest.settle(optimizer)
                        told, is_open, latest = [minibatch(left[0])], True, minibatch
                    logged += told
                    kls += [numbers[2] for numbers in told]
                    left = left[len(told) :]
                    if kls[-1] > most_kl:
                        go_on = False
                        if model.verbose >= 1:
                            print(f"Early stopping at step {epoch} due to reaching max kl: {kls[-1]:.2f}")
                    elif is_open:
                        optimizer.gradient_squares = minibatch.clip(max_norm)
                        optimizer.step()
                model._n_updates += 1
                if not go_on:
                    break
        self._log(model, logged, kls, clip)

    def _minibatch(self, like: tuple[Tensor, ...]) -> Minibatch:
        pi, vf = (self.policy.networks[name] for name in NETWORKS)
        return Minibatch((pi, vf), (self.pi, self.vf), (self.log_std, self.to_log_std), like)

    @contextmanager
    def _settled(self, optimizer: Any) -> Iterator[None]:
        """Inside the block an optimizer is told its gradients' squares: see `agents.GradientGuard`. At its end all are
        told of steps that nobody attended."""
        try:
            yield
        finally:
            for minibatch in self._minibatches.values():
                minibatch.settle(optimizer)
            optimizer.gradient_squares = None

    def _log(self, model: Any, logged: list[tuple[float, ...]], kls: list[float], clip: float) -> None:
        policy_loss, clipped, _, entropy, value_loss = np.mean(logged, axis=0).tolist()
        total = logged[-1][0] + model.ent_coef * logged[-1][3] + model.vf_coef * logged[-1][4]
        buffer, record = model.rollout_buffer, model.logger.record
        record("train/entropy_loss", entropy)
        record("train/policy_gradient_loss", policy_loss)
        record("train/value_loss", value_loss)
        record("train/approx_kl", float(np.mean(kls)))
        record("train/clip_fraction", clipped)
        record("train/loss", total)
        record("train/explained_variance", explained_variance(buffer.values.flatten(), buffer.returns.flatten()))
        if self.log_std is not None:
            record("train/std", float(self.log_std.exp().mean()))
        record("train/n_updates", model._n_updates, exclude="tensorboard")
        record("train/clip_range", clip)
        if model.clip_range_vf is not None:
            record("train/clip_range_vf", model.clip_range_vf(model._current_progress_remaining))


@contextmanager
def _held_still(owners: Sequence[Network | UnitAdam]) -> Iterator[None]:
    """Vouch that inside the block nobody puts another tensor in the place of one of theirs: see `Network.steady`."""
    stretch = object()
    for owner in owners:
        owner.steady = stretch
    try:
        yield
    finally:
        for owner in owners:
            owner.steady = None


class _Rollout:
    """A full rollout buffer, shuffled once an epoch with the draws that the buffer itself would make."""

    NAMES = ("observations", "actions", "values", "log_probs", "advantages", "returns")

    def __init__(self, buffer: RolloutBuffer, dtype: torch.dtype):
        self.rows = buffer.buffer_size * buffer.n_envs
        arrays = [buffer.swap_and_flatten(getattr(buffer, name)) for name in self.NAMES]
        discrete = np.issubdtype(arrays[1].dtype, np.integer)
        # rounded to float32 as SB3 does, whatever the networks' own type
        tensors = [torch.from_numpy(array.astype(np.float32)).to(dtype) for array in arrays]
        if discrete:
            tensors[1] = torch.from_numpy(arrays[1].astype(np.int64))
        self._tensors = [t if place < 2 else t.flatten() for place, t in enumerate(tensors)]
        self._shuffled = [torch.empty_like(tensor) for tensor in self._tensors]
        self._order = np.empty(self.rows, np.int64)
        half = self.rows // 2
        self._gather = Work(self._part(0, 0, half), *(self._part(place, 0, self.rows) for place in range(1, 6)))
        self._rest = Work(self._part(0, half, self.rows))
        self._size, self._batches = 0, list[tuple[Tensor, ...]]()

    def _part(self, place: int, start: int, end: int) -> tuple[Any, Table]:
        """The task that puts some rows of one of the tensors in order."""
        tensor, into = self._tensors[place], self._shuffled[place]
        size = tensor[0].numel() * tensor.element_size()
        order = self._order.ctypes.data + 8 * start
        numbers = [tensor.data_ptr(), order, end - start, size, into.data_ptr() + start * size]
        return NATIVE[torch.float32].gather, table(numbers)

    def minibatches(self, size: int) -> list[tuple[Tensor, ...]]:
        """Tensors in the order of `NAMES`, valid until the next epoch."""
        if size != self._size:
            starts = range(0, self.rows, size)
            self._size, self._batches = size, [tuple(t[i : i + size] for t in self._shuffled) for i in starts]
        self._order[:] = np.random.permutation(self.rows)  # noqa: NPY002  # SB3's stream
        together(self._rest, self._gather)
        return self._batches
