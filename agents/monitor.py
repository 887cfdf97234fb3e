"""Watch plasticity while training: a callback that writes the metrics of every network to SB3's logger."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from torch import Tensor

from agents.policies import PlasticPolicy
from plasticity import Network, activation_metrics, weight_metrics

CONSOLE = ("/dead_fraction", "/effective_rank", "/weight_magnitude", "/replaced")
SHARES = ("dead_fraction", "dormant_fraction", "dormant_fraction_0.1", "zero_fraction", "saturated_fraction")


class PlasticityMonitor(BaseCallback):
    """Writes `plasticity/<network>/<layer>/<metric>` and, summed up, `plasticity/<network>/<metric>`.

    Measured after a rollout and before the update: metrics of activations on the batch that is on policy (the rollout;
    a sample of the replay buffer for SAC) and, named `probe_<metric>`, on a batch frozen at the start, whose curves
    move only because the network did. Methods have acted in the update before, not yet in the one to come. Ranks are
    left out where a batch has fewer rows than a layer has units, `distance_from_init` where the agent was trained
    before. For a network as a whole shares are means over all its units, the effective rank is that of its last hidden
    layer, the weight magnitude is the mean over its hidden layers, and `replaced` is a sum.
    `update_ratio`, `gradient_norm` and `zero_gradient_fraction` are those of the first gradient step after the
    measurement before.

    every: environment steps between two measurements; None means after every rollout, or every 1000 steps for
        algorithms with a replay buffer.
    batch_size: rows of the on-policy batch at most; probe_size: rows of the frozen one.

    Draws from a random stream of its own and leaves no trace: a run with it ends with the same weights as without.
    `state_dict` holds what must survive a checkpoint: the probe batch, the initial weights and the counters.
    """

    def __init__(self, every: int | None = None, batch_size: int = 2048, probe_size: int = 1024):
        super().__init__()
        for name, value in {"every": every, "batch_size": batch_size, "probe_size": probe_size}.items():
            if value is not None and value < 1:
                raise ValueError(f"{name} must be in [1, inf), got {value}")
        self.every, self.batch_size, self.probe_size = every, batch_size, probe_size
        self.probe: tuple[Tensor, Tensor | None] | None = None
        self.initial: dict[str, Tensor] = {}
        self._collected: list[Any] = []
        self._random = np.random.default_rng(0)
        self._last: int | None = None
        self._replaced: dict[str, float] = {}

    @property
    def policy(self) -> PlasticPolicy:
        """The policy that is watched."""
        policy = self.model.policy
        if not isinstance(policy, PlasticPolicy):
            raise TypeError(f"PlasticityMonitor needs a policy with plasticity, got {type(policy).__name__}")
        return policy

    def _on_training_start(self) -> None:
        if self._last is not None and self._last > self.num_timesteps:
            self._last = None  # learn() has set the steps back to 0
        if not self.initial and self.num_timesteps == 0:  # later, the first weights are no longer known
            self.initial = {
                f"{name}/{layer.name}": layer.weight.detach().clone()
                for name, network in self.policy.networks.items()
                for layer in network.layers
            }

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        on_policy = isinstance(self.model, OnPolicyAlgorithm)
        every = self.every if self.every is not None else (0 if on_policy else 1000)
        if self._last is not None and self.num_timesteps - self._last < every:
            return
        batch = self._batch()
        if batch is None:
            return
        self._last = self.num_timesteps
        numbers = self.measure(batch)
        self._replaced = {name: numbers.get(f"{name}/replaced", 0.0) for name in self.policy.networks}
        for tag, value in numbers.items():
            # all of it would drown the console, which also refuses names that look alike once cut short
            shown = tag.count("/") == 1 and tag.endswith(CONSOLE) and "probe" not in tag
            self.logger.record(f"plasticity/{tag}", value, exclude=None if shown else "stdout")
        for recorder in self.policy.step_metrics.values():
            recorder.arm()

    def measure(self, batch: tuple[Tensor, Tensor | None]) -> dict[str, float]:
        """All metrics now, by tag without the leading `plasticity/`.

        batch: observations, and actions where critics need them.
        """
        numbers: dict[str, float] = {}
        batches = {"": batch} if self.probe is None else {"": batch, "probe_": self.probe}
        device = self.policy.device
        for prefix, (observations, actions) in batches.items():
            seen = self.policy.activations(observations.to(device), None if actions is None else actions.to(device))
            for name, network in self.policy.networks.items():
                found = {layer.name: activation_metrics(layer, seen[name][layer.name]) for layer in network.layers}
                numbers |= _tagged(name, network, found, prefix)
        for name, network in self.policy.networks.items():
            numbers |= self._of_network(name, network)
        return numbers

    def _of_network(self, name: str, network: Network) -> dict[str, float]:
        numbers: dict[str, float] = {}
        sources = [self.policy.step_metrics[name].telemetry(), self.policy.plasticity[name].telemetry()]  # type: ignore[operator]
        for layer in network.layers:
            initial = self.initial.get(f"{name}/{layer.name}")
            found = weight_metrics(layer.weight, None if initial is None else initial.to(layer.weight))
            numbers |= {f"{name}/{layer.name}/{key}": value for key, value in found.items()}
        numbers |= {f"{name}/{key}": value for source in sources for key, value in source.items()}
        magnitudes = [numbers[f"{name}/{layer.name}/weight_magnitude"] for layer in network.layers]
        numbers[f"{name}/weight_magnitude"] = float(np.mean(magnitudes))
        counts = [key for key in numbers if key.endswith("/replaced")]
        if counts:
            total = sum(numbers[key] for key in counts)
            numbers[f"{name}/replaced"] = total
            numbers[f"{name}/replaced_interval"] = total - self._replaced.get(name, 0.0)
        return numbers

    def _batch(self) -> tuple[Tensor, Tensor | None] | None:
        """Observations (and actions) to measure on, and the probe batch as soon as there are enough."""
        if isinstance(self.model, OnPolicyAlgorithm):
            observations = self.model.rollout_buffer.observations
            rows = observations.reshape(-1, *self.policy.observation_space.shape)  # type: ignore[misc]
            self._freeze(rows)
            return self._tensors(rows[_spread(len(rows), self.batch_size)], None)
        buffer = self.model.replay_buffer  # type: ignore[attr-defined]
        size = buffer.size() * buffer.n_envs
        if size < self.probe_size:
            return None
        picks = self._random.integers(size, size=min(size, self.batch_size))
        if self.probe is None:
            first = self._random.permutation(size)[: self.probe_size]
            self.probe = self._replayed(buffer, first)
        return self._replayed(buffer, picks)

    def _freeze(self, observations: Any) -> None:
        """Collect the probe batch over as many rollouts as it takes."""
        if self.probe is not None:
            return
        self._collected.append(observations.copy())
        if sum(map(len, self._collected)) >= self.probe_size:
            rows = np.concatenate(self._collected)
            self.probe = self._tensors(rows[_spread(len(rows), self.probe_size)], None)
            self._collected.clear()

    def _replayed(self, buffer: ReplayBuffer, picks: Any) -> tuple[Tensor, Tensor | None]:
        step, env = np.divmod(picks, buffer.n_envs)
        observations: Any = buffer.observations[step, env]
        normaliser = self.model.get_vec_normalize_env()
        if normaliser is not None:
            observations = normaliser.normalize_obs(observations)
        return self._tensors(observations, buffer.actions[step, env])

    def _tensors(self, observations: Any, actions: Any) -> tuple[Tensor, Tensor | None]:
        observations, _ = self.policy.obs_to_tensor(observations)
        return observations, None if actions is None else torch.as_tensor(actions, device=self.policy.device)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint of a run must keep, tensors and numbers only."""
        return {
            "probe": self.probe,
            "collected": [torch.as_tensor(rows) for rows in self._collected],
            "initial": self.initial,
            "last": self._last,
            "replaced": self._replaced,
            "random": self._random.bit_generator.state,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.probe, self.initial = state["probe"], state["initial"]
        self._collected = [rows.numpy() for rows in state["collected"]]
        self._last, self._replaced = state["last"], state["replaced"]
        self._random.bit_generator.state = state["random"]


def _spread(size: int, count: int) -> Any:
    """At most `count` indices, evenly spread over `range(size)`."""
    return np.linspace(0, size - 1, min(size, count)).round().astype(np.int64)


def _tagged(name: str, network: Network, found: dict[str, dict[str, float]], prefix: str) -> dict[str, float]:
    numbers = {f"{name}/{layer}/{prefix}{key}": v for layer, metrics in found.items() for key, v in metrics.items()}
    for key in SHARES:
        if all(key in metrics for metrics in found.values()):
            units = [layer.units for layer in network.layers]
            shares = [found[layer.name][key] for layer in network.layers]
            numbers[f"{name}/{prefix}{key}"] = float(np.average(shares, weights=units))
    last = found[network.layers[-1].name]
    numbers |= {f"{name}/{prefix}{key}": last[key] for key in _ranks(last)}
    return numbers


def _ranks(metrics: Iterable[str]) -> list[str]:
    return [key for key in ("effective_rank", "srank", "stable_rank") if key in metrics]
