"""What the callbacks write to the logger."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.vec_env import VecNormalize

import envs  # noqa: F401  registers the environments
from agents import PPO, PlasticityMonitor, RegimeClock
from plasticity import dead_units, effective_rank, singular_values
from tests.agents.models import CBP, PPO_SMALL, ContinuousImages, ppo, replaced, sac


class Log(Logger):
    """Keeps what is written at every dump."""

    def __init__(self):
        super().__init__(None, [])
        self.rows = []

    def dump(self, step=0):
        self.rows.append((step, dict(self.name_to_value)))
        super().dump(step)


def logged(model, steps, *callbacks):
    log = Log()
    model.set_logger(log)
    model.learn(steps, callback=list(callbacks), log_interval=1)
    return log.rows


def test_ppo_writes_all_metrics_for_both_networks_after_every_rollout():
    monitor = PlasticityMonitor(probe_size=64)
    rows = logged(ppo(plasticity=CBP), 192, monitor)
    assert len(rows) == 3
    for step, row in rows:
        for network in ("pi", "vf"):
            for metric in (
                "dead_fraction",
                "dormant_fraction",
                "saturated_fraction",
                "zero_fraction",
                "effective_rank",
                "srank",
                "approximate_rank",
                "stable_rank",
                "numerical_rank",
                "probe_effective_rank",
                "weight_magnitude",
                "spectral_norm",
                "distance_from_init",
                "replaced",
                "eligible_fraction",
                "age_p50",
                "output_change",
            ):
                assert f"plasticity/{network}/0/{metric}" in row, (step, metric)
            assert f"plasticity/{network}/effective_rank" in row
    last = rows[-1][1]
    assert (
        last["plasticity/pi/replaced"] == rows[1][1]["plasticity/pi/replaced"] + last["plasticity/pi/replaced_interval"]
    )
    assert last["plasticity/pi/0/update_ratio"] > 0
    assert "plasticity/pi/0/update_ratio" not in rows[0][1]  # no gradient step yet
    assert rows[0][1]["plasticity/pi/0/distance_from_init"] == 0
    assert last["plasticity/pi/0/distance_from_init"] > 0


def test_the_numbers_are_those_of_the_policy_on_that_batch():
    monitor = PlasticityMonitor(probe_size=64)
    model = ppo(policy_kwargs={"activation_fn": torch.nn.ReLU}, plasticity=CBP)
    logged(model, 64, monitor)
    probe = monitor.probe[0]
    assert probe.shape == (64, 4)
    numbers = monitor.measure(monitor.probe)
    with torch.no_grad():
        h = model.policy.mlp_extractor.policy_net[:2](probe)
    assert numbers["pi/0/probe_dead_fraction"] == float(dead_units(h, torch.nn.ReLU()).double().mean())
    assert numbers["pi/0/probe_effective_rank"] == pytest.approx(effective_rank(singular_values(h)))
    assert numbers["pi/replaced"] == replaced(model)["pi"]


def test_the_probe_batch_is_frozen_and_its_metrics_move_only_with_the_network():
    monitor = PlasticityMonitor(probe_size=100)
    model = ppo(learning_rate=0.0)
    rows = logged(model, 256, monitor)
    assert monitor.probe[0].shape == (100, 4)  # more than one rollout was needed
    probed = [
        row["plasticity/vf/0/probe_effective_rank"] for _, row in rows if "plasticity/vf/0/probe_effective_rank" in row
    ]
    moved = [row["plasticity/vf/0/effective_rank"] for _, row in rows]
    assert len(probed) == 3
    assert len(set(probed)) == 1
    assert len(set(moved)) > 1


def test_sac_is_measured_on_its_replay_buffer():
    monitor = PlasticityMonitor(every=60, probe_size=50)
    model = sac(plasticity=CBP)
    rows = logged(model, 210, monitor)
    assert len(rows) == 1  # SB3 dumps when an episode ends
    row = rows[0][1]
    assert {f"plasticity/{name}/1/effective_rank" for name in ("actor", "qf0", "qf1")} <= row.keys()
    assert monitor.probe[0].shape == (50, 3)
    assert monitor.probe[1].shape == (50, 1)


def test_state_goes_into_a_checkpoint_and_back():
    monitor, other = PlasticityMonitor(probe_size=64), PlasticityMonitor(probe_size=64)
    model = ppo(plasticity=CBP)
    logged(model, 128, monitor)
    other.load_state_dict(monitor.state_dict())
    other.init_callback(model)
    other.on_training_start({}, {})
    assert other.measure(other.probe) == monitor.measure(monitor.probe)


def test_wrong_sizes_and_policies_are_named():
    with pytest.raises(ValueError, match=r"probe_size must be in \[1, inf\), got 0"):
        PlasticityMonitor(probe_size=0)
    import stable_baselines3

    stock = stable_baselines3.PPO("MlpPolicy", "CartPole-v1", **PPO_SMALL)
    with pytest.raises(TypeError, match="needs a policy with plasticity, got ActorCriticPolicy"):
        stock.learn(64, callback=PlasticityMonitor())


def pendulums(n_envs, period=200):
    return make_vec_env("NSPendulum-v1", n_envs, seed=0, env_kwargs={"period": period, "schedule_seed": 3})


def test_the_clock_counts_all_sub_environments_and_the_regime_is_logged():
    venv, clock = pendulums(4), RegimeClock()
    model = PPO("MlpPolicy", venv, **PPO_SMALL)
    rows = logged(model, 64 * 4 * 4, clock)
    assert venv.get_attr("clock") == [1024] * 4
    for step, row in rows:
        assert row["nonstationary/due_regime"] == step // 200
        assert row["nonstationary/regime"] <= row["nonstationary/due_regime"]
        assert any(key.startswith("nonstationary/") and not key.endswith("regime") for key in row)
    steps = [step for step, _ in clock.changes]
    assert steps[0] == 0
    assert steps == sorted(steps)
    assert len({tuple(values.items()) for _, values in clock.changes}) > 1


def test_a_continued_run_starts_in_the_regime_that_is_due():
    model = PPO("MlpPolicy", pendulums(2), **PPO_SMALL).learn(512, callback=RegimeClock())
    fresh = pendulums(2)
    model.set_env(fresh)
    clock = RegimeClock()
    model.learn(128, callback=clock, reset_num_timesteps=False)
    assert fresh.get_attr("clock") == [640] * 2
    due = fresh.env_method("due", 512, indices=[0])[0]
    assert clock.changes[0] == (512, {k.removeprefix("nonstationary/"): v for k, v in due.items() if "regime" not in k})


def test_a_clock_that_went_wrong_is_an_error():
    venv = pendulums(1)
    model = PPO("MlpPolicy", venv, **PPO_SMALL)

    class Meddler(RegimeClock):
        def _on_step(self):
            if self.num_timesteps == 30:
                venv.envs[0].step(np.zeros(1, np.float32))
            return super()._on_step()

    with pytest.raises(RuntimeError, match=r"the environments' clocks show \[65\], the model 64 steps"):
        model.learn(64, callback=Meddler())


def test_stationary_environments_have_no_regime():
    clock = RegimeClock()
    rows = logged(PPO("MlpPolicy", gym.make("Pendulum-v1"), **PPO_SMALL), 64, clock)
    assert clock.changes == []
    assert not any(key.startswith("nonstationary") for key in rows[0][1])


def test_a_second_learn_is_measured_like_the_first_but_knows_no_initial_weights():
    monitor, model = PlasticityMonitor(probe_size=64), ppo()
    first, second = logged(model, 192, monitor), logged(model, 192, monitor)
    assert sum("plasticity/pi/0/effective_rank" in row for _, row in first) == 3
    assert sum("plasticity/pi/0/effective_rank" in row for _, row in second) == 3
    fresh = PlasticityMonitor(probe_size=64)
    log = Log()
    model.set_logger(log)
    model.learn(64, callback=fresh, reset_num_timesteps=False)
    assert not any("distance_from_init" in key for key in log.rows[0][1])


def test_the_console_shows_a_few_numbers_of_each_network(capsys):
    model = sac(ContinuousImages(), policy="CnnPolicy", buffer_size=200, verbose=1, plasticity=CBP)
    model.learn(100, callback=PlasticityMonitor(every=20, probe_size=40), log_interval=1)
    shown = capsys.readouterr().out
    assert "qf_features/dead_fraction" in shown
    assert "probe" not in shown


def test_discrete_observations_can_be_watched():
    rows = logged(ppo(Counting()), 64, PlasticityMonitor(probe_size=64))
    assert "plasticity/pi/0/dead_fraction" in rows[0][1]


class Counting(gym.Env):
    observation_space, action_space = gym.spaces.Discrete(5), gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.n = 0
        return 0, {}

    def step(self, action):
        self.n += 1
        return self.n % 5, 1.0, self.n >= 20, False, {}


def test_replayed_observations_are_normalised_and_come_from_every_sub_environment():
    venv = VecNormalize(make_vec_env("Pendulum-v1", 3, seed=0))
    monitor = PlasticityMonitor(every=30, probe_size=60)
    model = sac(venv)
    model.learn(90, callback=monitor)
    probe = monitor.probe[0].numpy()
    buffer = model.replay_buffer
    stored = buffer.observations[: buffer.size()].reshape(-1, 3)
    assert not any(np.allclose(row, other) for row in probe[:5] for other in stored)  # the raw ones are elsewhere
    model.get_vec_normalize_env().training = False
    buffer.observations[:, 0], buffer.observations[:, 1], buffer.observations[:, 2] = 0.0, 1.0, 2.0
    seen = monitor._replayed(buffer, np.arange(9))[0].numpy()
    expected = [venv.normalize_obs(np.full((1, 3), float(i), np.float32))[0] for i in (0, 1, 2)] * 3
    assert np.allclose(seen, expected)


def test_every_means_environment_steps(monkeypatch):
    steps = []
    monitor = PlasticityMonitor(every=40, probe_size=20)
    measure = monitor.measure
    monkeypatch.setattr(monitor, "measure", lambda batch: steps.append(monitor.num_timesteps) or measure(batch))
    sac().learn(150, callback=monitor)
    assert steps == [20, 60, 100, 140]


def test_measuring_happens_in_evaluation_mode_and_restores_the_mode():
    model = ppo(policy_kwargs={"features_extractor_class": Dropping})
    for mode in (True, False):
        model.policy.set_training_mode(mode)
        first, second = (model.policy.activations(torch.ones(50, 4))["pi"]["0"] for _ in range(2))
        assert torch.equal(first, second)
        assert model.policy.training is mode


class Dropping(FlattenExtractor):
    def forward(self, observations):
        return torch.nn.functional.dropout(super().forward(observations), 0.5, self.training)

    def plastic_modules(self):
        return []
