"""Watch plasticity while training: a callback that writes the metrics of every network to SB3's logger."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from torch import Tensor

from agents import measurements
from agents.alarms import Alarms
from agents.clock import PREFIX
from agents.measurements import Batch, Look
from agents.policies import PlasticPolicy

CONSOLE = ("/dead_fraction", "/effective_rank", "/weight_magnitude", "/replaced", "/plasticity_gap")
ONLY_TENSORBOARD = ("stdout", "log", "json", "csv")

REGIME = f"{PREFIX}regime"  # where an environment's info says it


class PlasticityMonitor(BaseCallback):
    """Writes `plasticity/<network>/<layer>/<metric>` and, summed up, `plasticity/<network>/<metric>`.

    Measured after a rollout and before the update: metrics of activations on the batch that is on policy (the rollout;
    or a sample of the replay buffer) and, named `probe_<metric>`, on a batch frozen at the start, whose curves move
    only because the network did. Under SB3's VecNormalize both are normalised by the statistics of when they were
    taken. A recurrent policy sees each row as the first of an episode. Methods have acted in the update before, not yet
    in the one to come. Ranks are left out where a batch has fewer rows than a layer has units, `distance_from_init`
    where the agent was trained before. For a network as a whole shares are means over all its units, ranks and the
    feature norm are those of its last hidden layer, the weight magnitude is the mean over its hidden layers, and
    `replaced` is a sum.
    `update_ratio`, `gradient_norm` and `zero_gradient_fraction` are those of the first gradient step after the
    measurement before; `churn` is how much outputs on the frozen batch changed since then. `policy_entropy` is SAC's.

    every: environment steps between two measurements; None means after every rollout, or every 1000 steps for
        algorithms with a replay buffer.
    batch_size: rows of the on-policy batch at most; probe_size: rows of the frozen one.
    probe_every: measurements from one plasticity probe (`plasticity.plasticity_probe`) of all networks on the frozen
        batch to the next; there is also one at the first measurement after each change of the world. They write
        `plasticity_gap`, `fit_loss` and `fresh_fit_loss`. Seconds a network; None means never.
    landscape: also `gradient_rank`, `ntk_rank` and `hessian_eigenvalue_1`, `_2`, `_3` on the frozen batch
        (`plasticity.landscape_metrics`); about a second a network and measurement.
    histograms: also what methods offer as such (continual backprop the units' age and utility), to TensorBoard only.
    alarms: say so in the log where a layer loses plasticity (`agents.Alarms`); `alarms.raised` are those so far.

    Draws from random streams of its own and leaves no trace: a run with it ends with the same weights as without.
    `state_dict` holds what must survive a checkpoint: the probe batch, the initial weights and the counters.
    """

    def __init__(
        self,
        every: int | None = None,
        batch_size: int = 2048,
        probe_size: int = 1024,
        *,
        probe_every: int | None = None,
        landscape: bool = False,
        histograms: bool = False,
        alarms: bool = True,
    ):
        super().__init__()
        counts = {"every": every, "batch_size": batch_size, "probe_size": probe_size, "probe_every": probe_every}
        for name, value in counts.items():
            if value is not None and value < 1:
                raise ValueError(f"{name} must be in [1, inf), got {value}")
        self.every, self.batch_size, self.probe_size = every, batch_size, probe_size
        self.probe_every, self.landscape, self.histograms = probe_every, landscape, histograms
        self.alarms = Alarms() if alarms else None
        self.probe: Batch | None = None
        self.initial: dict[str, dict[str, Tensor]] = {}
        self._collected: list[Any] = []
        self._random = np.random.default_rng(0)
        self._last: int | None = None
        self._replaced: dict[str, float] = {}
        self._outputs: dict[str, Tensor] = {}
        self._regime: int | None = None
        self._until_probe = 0

    @property
    def policy(self) -> PlasticPolicy:
        """The policy that is watched."""
        policy = self.model.policy
        if not isinstance(policy, PlasticPolicy):
            raise TypeError(f"PlasticityMonitor needs a policy with plasticity, got {type(policy).__name__}")
        return policy

    def _on_training_start(self) -> None:
        if self._last is not None and self._last > self.num_timesteps:
            self._last = self._regime = None  # learn() has set the steps back to 0
        if not self.initial and self.num_timesteps == 0:  # later, the first weights are no longer known
            self.initial = measurements.initial_parameters(self.policy)

    def _on_step(self) -> bool:
        regime = int(max([info.get(REGIME, 0) for info in self.locals["infos"]], default=0))
        if self._regime is None or regime > self._regime:
            if self._regime is not None:
                self._until_probe = 0
            self._regime = regime
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
        seen = None if self.probe is None else measurements.look(self.policy, self.probe)
        numbers = self.measure(batch, seen)
        self._replaced = {name: numbers.get(f"{name}/replaced", 0.0) for name in self.policy.networks}
        if seen is not None:
            numbers |= self._on_probe_batch(seen)
        self._record(numbers)
        for recorder in self.policy.step_metrics.values():
            recorder.arm()

    def _on_probe_batch(self, seen: Look) -> dict[str, float]:
        """What compares with earlier measurements, or takes long: churn, plasticity probe, loss landscape."""
        outputs = measurements.outputs(self.policy, seen)
        numbers = measurements.churn(self._outputs, outputs)
        self._outputs = outputs
        if self.probe_every is not None:
            if self._until_probe == 0:
                numbers |= measurements.gaps(self.policy, seen.inputs, self.initial)
                self._until_probe = self.probe_every
            self._until_probe -= 1
        if self.landscape:
            numbers |= measurements.landscapes(self.policy, seen.inputs)
        return numbers

    def _record(self, numbers: dict[str, float]) -> None:
        for tag, value in numbers.items():
            # all of it would drown the console, which also refuses names that look alike once cut short
            shown = tag.count("/") == 1 and tag.endswith(CONSOLE) and "probe" not in tag
            self.logger.record(f"plasticity/{tag}", value, exclude=None if shown else "stdout")
        if self.histograms:
            for tag, values in measurements.histograms(self.policy).items():
                self.logger.record(f"plasticity/{tag}", values, exclude=ONLY_TENSORBOARD)
        if self.alarms is not None:
            for sentence in self.alarms.check(self.num_timesteps, numbers):
                self.logger.info(f"plasticity alarm at step {self.num_timesteps:,}: {sentence}")

    def measure(self, batch: Batch, on_probe: Look | None = None) -> dict[str, float]:
        """All metrics of networks as they are now, by tag without the leading `plasticity/`.

        batch: observations, and actions where critics need them. on_probe: a look at the probe batch, if there was one.
        """
        numbers: dict[str, float] = {}
        batches = {"": batch} if self.probe is None else {"": batch, "probe_": self.probe}
        for prefix, one in batches.items():
            seen = on_probe if prefix and on_probe else measurements.look(self.policy, one)
            numbers |= measurements.of_activations(self.policy, seen, prefix)
            numbers |= measurements.policy_entropy(self.policy, one, prefix)
        numbers |= measurements.of_weights(self.policy, self.initial)
        for name in self.policy.networks:
            if (total := numbers.get(f"{name}/replaced")) is not None:
                numbers[f"{name}/replaced_interval"] = total - self._replaced.get(name, 0.0)
        return numbers

    def _batch(self) -> Batch | None:
        """Observations (and actions) to measure on, and the probe batch as soon as there are enough."""
        if isinstance(self.model, OnPolicyAlgorithm):
            observations = self.model.rollout_buffer.observations
            shape: Any = self.policy.observation_space.shape
            rows = observations.reshape(-1, *shape)
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

    def _replayed(self, buffer: ReplayBuffer, picks: Any) -> Batch:
        step, env = np.divmod(picks, buffer.n_envs)
        observations: Any = buffer.observations[step, env]
        normaliser = self.model.get_vec_normalize_env()
        if normaliser is not None:
            observations = normaliser.normalize_obs(observations)
        return self._tensors(observations, buffer.actions[step, env])

    def _tensors(self, observations: Any, actions: Any) -> Batch:
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
            "outputs": self._outputs,
            "regime": self._regime,
            "until_probe": self._until_probe,
            "alarms": None if self.alarms is None else self.alarms.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.probe, self.initial = state["probe"], state["initial"]
        self._collected = [rows.numpy() for rows in state["collected"]]
        self._last, self._replaced = state["last"], state["replaced"]
        self._random.bit_generator.state = state["random"]
        self._outputs, self._regime, self._until_probe = state["outputs"], state["regime"], state["until_probe"]
        if self.alarms is not None and state["alarms"] is not None:
            self.alarms.load_state_dict(state["alarms"])


def _spread(size: int, count: int) -> Any:
    """At most `count` indices, evenly spread over `range(size)`."""
    return np.linspace(0, size - 1, min(size, count)).round().astype(np.int64)
