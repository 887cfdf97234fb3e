"""What the callbacks write to the logger."""

from __future__ import annotations

import itertools

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import Logger, configure
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.vec_env import VecNormalize
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import envs  # noqa: F401  registers the environments
from agents import PPO, PlasticityMonitor, RegimeClock
from experiments.checkpoint.codec import decode, encode
from plasticity import StepMetrics, dead_units, effective_rank, singular_values
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
    monkeypatch.setattr(monitor, "measure", lambda *given: steps.append(monitor.num_timesteps) or measure(*given))
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


def everything(probe_size=64, **kwargs):
    return PlasticityMonitor(probe_size=probe_size, probe_every=1, landscape=True, histograms=True, **kwargs)


@pytest.mark.usefixtures("short_probe")
def test_ppo_with_everything_on():
    rows = [row for _, row in logged(ppo(plasticity=CBP), 192, everything())]
    for row in rows:
        for network in ("pi", "vf"):
            for metric in ("plasticity_gap", "fit_loss", "fresh_fit_loss", "gradient_rank", "ntk_rank"):
                assert f"plasticity/{network}/{metric}" in row
            assert f"plasticity/{network}/hessian_eigenvalue_3" in row
    assert rows[0]["plasticity/pi/plasticity_gap"] == 0  # still the weights that it is compared with
    assert rows[2]["plasticity/pi/plasticity_gap"] != 0
    assert "plasticity/pi/churn" not in rows[0]
    assert rows[1]["plasticity/pi/churn"] > 0
    assert {"plasticity/pi/gradient_norm", "plasticity/pi/update_ratio", "plasticity/pi/zero_gradient_fraction"} <= {
        *rows[1]
    }
    assert {"train/entropy_loss", "train/approx_kl", "train/explained_variance"} <= rows[1].keys()  # SB3's own
    age = rows[2]["plasticity/pi/0/age"]
    assert age.shape == rows[2]["plasticity/pi/0/utility"].shape == (64,)
    assert age.float().median() == rows[2]["plasticity/pi/0/age_p50"]


def test_churn_is_the_mean_change_of_the_outputs():
    monitor, model = PlasticityMonitor(probe_size=64), ppo()
    logged(model, 64, monitor)
    monitor.on_rollout_end()
    with torch.no_grad():
        earlier = model.policy.action_net(model.policy.mlp_extractor.forward_actor(monitor.probe[0]))
        model.policy.action_net.weight.zero_()
        model.policy.action_net.bias.copy_(torch.tensor([1.0, 2.0]))
    monitor.on_rollout_end()
    wanted = float((torch.tensor([1.0, 2.0]) - earlier).abs().mean())
    assert model.logger.name_to_value["plasticity/pi/churn"] == pytest.approx(wanted)
    assert model.logger.name_to_value["plasticity/vf/churn"] == 0


def test_the_entropy_of_sac_is_that_of_its_squashed_actions():
    model, monitor = sac(), PlasticityMonitor(every=50, probe_size=50)
    logged(model, 60, monitor)
    numbers = monitor.measure(monitor.probe)
    observations = monitor.probe[0].repeat(400, 1)
    with torch.no_grad():
        _, log_probability = model.actor.action_log_prob(observations)
    assert numbers["actor/policy_entropy"] == pytest.approx(-float(log_probability.mean()), abs=0.25)
    assert numbers["actor/policy_entropy"] == numbers["actor/probe_policy_entropy"]  # always the same noise
    gsde = sac(use_sde=True)
    logged(gsde, 60, monitor := PlasticityMonitor(every=50, probe_size=50))
    assert np.isfinite(monitor.measure(monitor.probe)["actor/policy_entropy"])


@pytest.mark.usefixtures("short_probe")
def test_the_probe_comes_every_so_many_measurements_and_after_each_change():
    monitor = PlasticityMonitor(probe_size=64, probe_every=3)
    rows = logged(PPO("MlpPolicy", pendulums(1, period=400), **PPO_SMALL), 64 * 10, RegimeClock(), monitor)
    probed = [step // 64 for step, row in rows if "plasticity/vf/plasticity_gap" in row]
    assert probed == [1, 4, 7, 10]  # the change at step 400 falls into rollout 7
    monitor = PlasticityMonitor(probe_size=64, probe_every=100)
    rows = logged(PPO("MlpPolicy", pendulums(1, period=200), **PPO_SMALL), 64 * 10, RegimeClock(), monitor)
    regimes = [row["nonstationary/regime"] for _, row in rows]
    probed = ["plasticity/vf/plasticity_gap" in row for _, row in rows]
    assert probed == [True, *(one != other for one, other in itertools.pairwise(regimes))]
    assert sum(probed) > 2


def test_everything_about_critics_behind_an_extractor():
    model = sac(ContinuousImages(), policy="CnnPolicy", buffer_size=200)
    log = Log()
    model.set_logger(log)
    monitor = PlasticityMonitor(every=40, probe_size=20, landscape=True)
    model.learn(90, callback=monitor, log_interval=1)
    row = log.rows[-1][1]
    assert row["plasticity/qf_features/churn"] > 0  # of its last hidden layer: critics read actions as well
    assert "plasticity/qf_features/ntk_rank" not in row
    assert row["plasticity/actor/ntk_rank"] > 0


def test_histograms_go_to_tensorboard_alone(tmp_path):
    model = ppo(plasticity=CBP)
    model.set_logger(configure(str(tmp_path), ["csv", "json", "log", "tensorboard"]))
    model.learn(128, callback=PlasticityMonitor(probe_size=64, histograms=True))
    model.logger.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert {"plasticity/pi/0/age", "plasticity/vf/1/utility"} <= set(events.Tags()["histograms"])
    for name in ("progress.csv", "progress.json", "log.txt"):
        assert "0/age_p50" in (tmp_path / name).read_text() or name == "log.txt"
        assert "0/utility" not in (tmp_path / name).read_text()


def test_alarms_are_said_in_the_log_and_can_be_turned_off(capsys):
    for alarms in (True, False):
        model, monitor = ppo(verbose=1), PlasticityMonitor(probe_size=64, alarms=alarms)
        if monitor.alarms is not None:  # the first measurements say nothing of ranks
            monitor.alarms.load_state_dict(monitor.alarms.state_dict() | {"seen": 10})
        model.learn(64, callback=monitor)
        with torch.no_grad():
            model.policy.mlp_extractor.policy_net[0].weight[1:] = model.policy.mlp_extractor.policy_net[0].weight[0]
        monitor.on_rollout_end()
        said = "alarm at step 64: pi/0: effective rank on the probe batch fell from " in capsys.readouterr().out
        assert said is alarms
    assert monitor.alarms is None


@pytest.mark.usefixtures("short_probe")
def test_all_its_state_survives_a_checkpoint(tmp_path):
    monitor, other = everything(), everything()
    model = ppo(plasticity=CBP)
    logged(model, 128, monitor)
    torch.save(monitor.state_dict(), tmp_path / "monitor.pt")
    other.load_state_dict(torch.load(tmp_path / "monitor.pt", weights_only=True))
    other.init_callback(model)
    other.on_training_start({}, {})
    with torch.no_grad():
        model.policy.mlp_extractor.policy_net[0].weight[1:] = 0.0
        model.policy.mlp_extractor.policy_net[0].bias[1:] = 0.0
    found = []
    for one in (monitor, other):
        one.on_rollout_end()
        found.append(dict(model.logger.name_to_value))
    assert set(found[0]) == set(found[1])
    assert found[0]["plasticity/pi/plasticity_gap"] == found[1]["plasticity/pi/plasticity_gap"]
    assert found[0]["plasticity/pi/churn"] == found[1]["plasticity/pi/churn"] > 0
    assert monitor.alarms.raised == other.alarms.raised != []


class Numbers(PlasticityMonitor):
    """Keeps what it would log."""

    def __init__(self, **kwargs):
        super().__init__(probe_every=2, **kwargs)
        self.seen = []

    def _record(self, numbers):
        self.alarms.check(self.num_timesteps, numbers)
        self.seen.append((self.num_timesteps, numbers))


class Resumed(BaseCallback):
    """From one step on a second monitor, which knows of the first only what a checkpoint at that step does."""

    def __init__(self, first, second, at):
        super().__init__()
        self.first, self.second, self.at = first, second, at
        self.begun = False

    def _on_rollout_start(self):
        if not self.begun and self.num_timesteps >= self.at:
            self.begun, self.known = True, len(self.first.seen)
            self.second.load_state_dict(decode(*encode(self.first.state_dict())))
            self.second.init_callback(self.model)
            self.second.on_training_start(self.locals, self.globals)

    def _on_step(self):
        if self.begun:
            self.second.update_locals(self.locals)
            self.second.on_step()
        return True

    def _on_rollout_end(self):
        if self.begun:
            self.second.on_rollout_end()


@pytest.mark.parametrize("name", ["ppo", "sac"])
def test_a_resumed_monitor_sees_what_the_first_would(name, monkeypatch):
    def gaps(policy, inputs, initial):  # a quick number of all that the probe depends on
        return {
            f"{k}/plasticity_gap": float(inputs[k].sum() + sum(v.sum() for v in initial[k].values())) for k in inputs
        }

    monkeypatch.setattr("agents.measurements.gaps", gaps)
    model = PPO("MlpPolicy", pendulums(1), **PPO_SMALL) if name == "ppo" else sac(pendulums(1), plasticity=CBP)
    every = None if name == "ppo" else 60
    first = Numbers(every=every, probe_size=100)
    resumed = [Resumed(first, Numbers(every=every, probe_size=100), at) for at in (0, 64, 192)]
    model.learn(320, callback=[RegimeClock(), first, *resumed])
    for one in resumed:
        assert one.second.seen == first.seen[one.known :]
        assert len(one.second.seen) >= 2
        assert encode(one.second.state_dict()) == encode(first.state_dict())
    assert [one.known for one in resumed] == ([0, 1, 3] if name == "ppo" else [0, 0, 2])
    probed = [any(key.endswith("/plasticity_gap") for key in numbers) for _, numbers in first.seen]
    assert len(set(probed)) == 2


def test_the_last_measured_gradient_step_survives_a_checkpoint():
    model = ppo()
    model.learn(64, callback=PlasticityMonitor(probe_size=64))
    for recorder in model.policy.step_metrics.values():
        other = StepMetrics()
        other.load_state_dict(decode(*encode(recorder.state_dict())))
        assert other.telemetry() == recorder.telemetry() != {}
        assert other.state_dict()["armed"] is False
        recorder.arm()
        other.load_state_dict(recorder.state_dict())
        assert other.state_dict()["armed"] is True


def test_a_clock_that_was_loaded_leaves_the_environments_and_methods_alone(monkeypatch):
    notices = []
    monkeypatch.setattr("agents.clock.notice_change", lambda policy: notices.append(1))
    venv, clock = pendulums(2), RegimeClock()
    model = PPO("MlpPolicy", venv, **PPO_SMALL).learn(512, callback=clock)
    told, changes = len(notices), list(clock.changes)
    assert told == len(changes) - 1 > 0
    calls, method = [], venv.env_method

    def watched(name, *args, **kwargs):
        calls.append(name)
        return method(name, *args, **kwargs)

    venv.env_method = watched
    other = RegimeClock()
    other.load_state_dict(decode(*encode(clock.state_dict())))
    other.init_callback(model)
    other.on_training_start({}, {})
    assert "set_clock" not in calls
    assert other.changes == changes
    assert len(notices) == told
    clock.on_training_start({}, {})  # a second learn that goes on
    assert clock.changes == changes
    assert len(notices) == told
    method("set_clock", 7)  # environments that could not be resumed
    other.load_state_dict(clock.state_dict())
    other.on_training_start({}, {})
    assert venv.get_attr("clock") == [512, 512]
    assert len(notices) == told


def test_a_second_learn_from_the_beginning_is_a_change_of_the_world(monkeypatch):
    notices = []
    monkeypatch.setattr("agents.clock.notice_change", lambda policy: notices.append(1))
    clock = RegimeClock()
    model = PPO("MlpPolicy", pendulums(1), **PPO_SMALL).learn(256, callback=clock)
    model.learn(64, callback=clock)
    assert [step for step, _ in clock.changes] == [0, 201, 0]
    assert len(notices) == 2
