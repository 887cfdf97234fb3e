"""The agent tested on frozen regimes while it trains, and training that does not notice."""

from __future__ import annotations

import random

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import KVWriter, Logger
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

import envs
from agents import PPO, ForgettingEvaluation, RegimeClock
from agents.frozen import FrozenRegimes
from experiments.checkpoint.codec import decode, encode
from tests.agents.models import CBP, PPO_SMALL, ppo, sac, weights

PENDULUM = {"period": 100, "schedule_seed": 3}


def pendulum(**kwargs):
    return gym.make("NSPendulum-v1", max_episode_steps=20, **PENDULUM | kwargs)


def cartpole():
    return gym.make("NSCartPole-v1", max_episode_steps=20, **PENDULUM)


class Pays(gym.Env):
    """Five steps, each of which pays what the world is worth, and one more for pushing right (action 1)."""

    observation_space = spaces.Box(-1, 1, (2,), np.float32)
    action_space = spaces.Discrete(2)
    worth = 0.0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left = 5
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.left -= 1
        return np.zeros(2, np.float32), self.worth, self.left == 0, False, {}


class Worth:
    nominal, low, high = 0.0, -100.0, 100.0

    def validate(self, env):
        self.env = env.unwrapped

    def apply(self, value):
        self.env.worth = value

    def restore(self):
        self.env.worth = 0.0


def paying(when="every:50", to="list:1,2,4", first="draw"):
    change = {"target": Worth, "when": when, "to": to, "first": first}
    return envs.NonStationary(Pays(), change)


def evaluated(make, steps, n_envs=1, **kwargs):
    evaluation = ForgettingEvaluation(make, **{"episodes": 2} | kwargs)
    model = PPO("MlpPolicy", make_vec_env(make, n_envs, seed=0), **PPO_SMALL | {"n_steps": 20, "batch_size": 20})
    model.learn(steps, callback=[RegimeClock(), evaluation])
    return evaluation


def test_the_matrix_holds_what_each_regime_pays():
    evaluation = evaluated(paying, 160, window=1)
    nan = float("nan")
    expected = [[5, 10, nan], [5, 10, 20], [5, 10, 20]]  # regime 2 is the last: there is no next
    np.testing.assert_array_equal(evaluation.results.returns, expected)
    np.testing.assert_array_equal(evaluation.results.untrained, [5, 10, 20])
    assert [(one.step, one.trained, one.at) for one in evaluation.evaluations] == [
        (0, -1, "start"),
        *((51, 0, "end"), (101, 1, "end"), (160, 2, "end")),  # the first step in a regime is the one that tells
    ]
    assert [(stretch.start, stretch.end) for stretch in evaluation.stretches.values()] == [
        *((0, 51), (51, 101), (101, 160)),
    ]
    assert [len(stretch.episodes) for stretch in evaluation.stretches.values()] == [10, 10, 12]
    assert evaluation.stretches[1].episodes[0] == (55, 10.0)
    np.testing.assert_array_equal(evaluation.results.recovery, [nan, 4, 4])  # a step of the first episode is past
    numbers = evaluation.results.numbers()
    assert numbers["average_return"] == pytest.approx(35 / 3)
    assert (numbers["forgetting"], numbers["backward_transfer"], numbers["forward_transfer"]) == (0, 0, 0)


def test_a_fall_that_is_never_made_up_for():
    evaluation = evaluated(lambda: paying(to="list:4,1,4"), 160, window=2)
    nan = float("nan")
    np.testing.assert_array_equal(evaluation.results.recovery, [nan, nan, 9])
    assert evaluation.results.numbers()["recovered"] == 0.5


def test_a_fixed_set_of_regimes_and_tests_in_between():
    evaluation = evaluated(paying, 160, regimes=2, every=20)
    assert all(list(one.returns) == [0, 1] for one in evaluation.evaluations)
    assert [(one.step, one.at) for one in evaluation.evaluations] == [
        *((0, "start"), (20, "during"), (40, "during"), (51, "end")),
        *((71, "during"), (91, "during"), (101, "end")),
        *((121, "during"), (141, "during"), (160, "end")),
    ]
    assert evaluation.results.returns.shape == (3, 2)


def test_a_change_is_when_the_first_sub_environment_meets_it():
    evaluation = evaluated(paying, 160, n_envs=4)
    assert [stretch.start for stretch in evaluation.stretches.values()] == [
        0,
        64,
        104,
    ]  # the first steps after 60 and 100


def test_episodes_are_those_of_the_deterministic_policy_on_a_pinned_copy():
    model = PPO("MlpPolicy", make_vec_env(pendulum, 2, seed=0), **PPO_SMALL).learn(256, callback=RegimeClock())
    frozen = FrozenRegimes(pendulum, 3, 7, lambda: False)
    found = frozen.returns(model, [0, 2, 4])
    seeds = np.random.SeedSequence(7, spawn_key=(0,)).generate_state(3)
    for regime in (0, 2, 4):
        env = pendulum()
        env.get_wrapper_attr("pin")(regime=regime)
        for episode in range(3):
            observation, info = env.reset(seed=int(seeds[episode]))
            assert info["nonstationary/regime"] == regime
            total, done = 0.0, False
            while not done:
                action, _ = model.predict(observation, deterministic=True)
                observation, reward, terminated, done, _ = env.step(action)
                total, done = total + reward, terminated or done
            assert found[regime][episode] == pytest.approx(total, rel=1e-3)
    again = frozen.returns(model, [4])
    np.testing.assert_allclose(again[4], found[4], rtol=1e-3)


def state(model):
    moments = [m for group in (model.policy, getattr(model, "critic", None)) if group for m in optimizer_state(group)]
    return [weights(model), *moments, torch.get_rng_state().double(), torch.as_tensor(np.random.get_state()[1])]  # noqa: NPY002


def optimizer_state(module):
    optimizer = getattr(module, "optimizer", None) or module.actor.optimizer
    return [torch.as_tensor(v).double() for s in optimizer.state.values() for v in s.values() if v is not None]


def runs(name):
    """The same training without and with evaluation."""
    for evaluate in (False, True):
        make, steps = (cartpole, 256) if name == "ppo" else (pendulum, 240)
        venv = make_vec_env(make, 2, seed=0)
        model = ppo(venv, plasticity=CBP) if name == "ppo" else sac(venv, plasticity=CBP)
        more = []
        if evaluate:

            def fresh(env, seed, small=name == "ppo"):
                return ppo(env, seed=seed) if small else sac(env, seed=seed)

            more = [ForgettingEvaluation(make, 2, every=30, fresh=fresh)]
        model.learn(steps, callback=[RegimeClock(), *more])
        if evaluate:
            assert len(more[0].evaluations) > 6
            assert sum(bool(stretch.fresh) for stretch in more[0].stretches.values()) >= 2
        yield model, random.getstate()


@pytest.mark.parametrize("name", ["ppo", "sac"])
def test_training_with_it_is_bit_for_bit_training_without(name):
    (plain, python), (tested, same) = runs(name)
    assert python == same
    assert len(state(plain)) == len(state(tested))
    for one, other in zip(state(plain), state(tested), strict=True):
        assert torch.equal(one, other)


def test_modes_of_every_module_are_put_back():
    model = PPO("MlpPolicy", make_vec_env(pendulum, 1, seed=0), **PPO_SMALL)
    model.policy.train()
    model.policy.value_net.eval()
    before = [module.training for module in model.policy.modules()]
    FrozenRegimes(pendulum, 1, 0, lambda: False).returns(model, [0])
    assert [module.training for module in model.policy.modules()] == before


def test_a_fresh_agent_is_trained_on_the_frozen_regime_for_as_long_as_it_lasted():
    seen = []

    class Watched(PPO):
        def learn(self, total_timesteps, **kwargs):
            trained = super().learn(total_timesteps, **kwargs)
            regimes = [env["nonstationary/regime"] for env in self.env.env_method("applied")]
            seen.append((total_timesteps, self.num_timesteps, regimes, self.seed))
            return trained

    def fresh(venv, seed):
        return Watched("MlpPolicy", venv, **PPO_SMALL | {"n_steps": 10, "batch_size": 10, "seed": seed})

    evaluation = evaluated(paying, 160, n_envs=2, fresh=fresh)
    lasted = [stretch.end - stretch.start for stretch in evaluation.stretches.values()]
    assert [steps for steps, *_ in seen] == lasted
    assert all(steps <= taken < steps + 20 for steps, taken, *_ in seen)
    assert [regimes for *_, regimes, _ in seen] == [[0, 0], [1, 1], [2, 2]]
    assert len({seed for *_, seed in seen}) == 3
    np.testing.assert_array_equal(evaluation.results.gap_to_fresh, [0, 0, 0])


class Rows(KVWriter):
    def __init__(self):
        self.rows = []

    def write(self, key_values, key_excluded, step=0):
        self.rows.append((step, dict(key_values), dict(key_excluded)))


def test_numbers_are_logged_at_the_step_of_the_test():
    rows = Rows()
    evaluation = ForgettingEvaluation(paying, 2)
    model = PPO("MlpPolicy", make_vec_env(paying, 1), **PPO_SMALL | {"n_steps": 20, "batch_size": 20})
    model.set_logger(Logger(None, [rows]))
    model.learn(160, callback=[RegimeClock(), evaluation])
    ours = [(step, row) for step, row, _ in rows.rows if "evaluation/return_on_regime_0" in row]
    assert [step for step, _ in ours] == [0, 51, 101, 160]
    assert ours[0][1] == {
        **{f"evaluation/return_on_regime_{k}": 5.0 * 2**k for k in range(3)},
        "time/total_timesteps": 0,
    }
    last = ours[-1][1]
    assert last["evaluation/forgetting"] == 0
    assert last["evaluation/recovered"] == 1
    assert "evaluation/gap_to_fresh" not in last  # not known, so not logged
    others = [row for _, row, _ in rows.rows if "evaluation/return_on_regime_0" not in row]
    assert not any(key.startswith("evaluation/") for row in others for key in row)


def test_the_plan_counts_the_episodes():
    evaluation = ForgettingEvaluation(paying, 2)
    plan = evaluation.plan(160)
    assert "2 episodes on the regimes met so far and the next, at the end of each regime (3 of them)" in plan
    assert "about 22 episodes in all" in plan  # untrained 3, then 2 + 3 + 3 regimes
    model = PPO("MlpPolicy", make_vec_env(paying, 1), **PPO_SMALL | {"n_steps": 20, "batch_size": 20})
    model.learn(160, callback=[RegimeClock(), evaluation])
    assert sum(len(totals) for one in evaluation.evaluations for totals in one.returns.values()) == 22


def test_a_drift_has_no_regimes_and_that_is_said():
    def drifting():
        return envs.NonStationary(Pays(), {"target": Worth, "drift": "linear:100,1,9"})

    evaluation = evaluated(drifting, 60)
    assert "no regimes to go back to" in evaluation.plan(60)
    np.testing.assert_array_equal(evaluation.results.returns, [[5.0]])
    assert evaluation.results.numbers()["average_return"] == 5


def test_what_cannot_be_evaluated_is_said():
    with pytest.raises(ValueError, match=r"needs an environment that changes .*, got .*CartPole"):
        ForgettingEvaluation(lambda: gym.make("CartPole-v1"))
    with pytest.raises(ValueError, match=r"regimes must be in \[1, 3\], all that the schedule has, got 7"):
        ForgettingEvaluation(paying, regimes=7)
    with pytest.raises(ValueError, match=r"episodes must be in \[1, inf\), got 0"):
        ForgettingEvaluation(paying, episodes=0)
    with pytest.raises(ValueError, match=r"fraction must be in \(0, 1\], got 1.5"):
        ForgettingEvaluation(paying, fraction=1.5)
    stationary = PPO("MlpPolicy", "CartPole-v1", **PPO_SMALL)
    with pytest.raises(ValueError, match="this one is stationary"):
        stationary.learn(64, callback=ForgettingEvaluation(paying))
    other = PPO("MlpPolicy", make_vec_env(pendulum, 1), **PPO_SMALL)
    with pytest.raises(ValueError, match=r"of another schedule: at step .* give both the same schedule_seed"):
        other.learn(256, callback=ForgettingEvaluation(lambda: pendulum(schedule_seed=4)))
    pinned = make_vec_env(paying, 1)
    pinned.env_method("pin", 3.0)
    with pytest.raises(ValueError, match="pinned to a value"):
        PPO("MlpPolicy", pinned, **PPO_SMALL).learn(64, callback=ForgettingEvaluation(paying))


def test_a_run_that_is_told_to_stop_stops():
    asked = {"stop": False}

    def fresh(venv, seed):
        asked["stop"] = True  # in the midst of the first regime's end
        return PPO("MlpPolicy", venv, **PPO_SMALL)

    evaluation = evaluated(paying, 160, fresh=fresh, stop=lambda: asked["stop"])
    assert [one.at for one in evaluation.evaluations] == ["start"]
    assert evaluation.results is None
    assert not any(stretch.fresh for stretch in evaluation.stretches.values())


def test_state_goes_into_a_checkpoint_and_back_and_a_new_beginning_clears_it(tmp_path):
    evaluation = evaluated(paying, 80)
    torch.save(evaluation.state_dict(), tmp_path / "state.pt")
    other = ForgettingEvaluation(paying, 2)
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    np.testing.assert_array_equal(other.results.returns, evaluation.results.returns)
    np.testing.assert_array_equal(other.results.recovery, evaluation.results.recovery)
    model = evaluation.model
    model.learn(80, callback=[RegimeClock(), evaluation], reset_num_timesteps=False)
    assert [one.step for one in evaluation.evaluations] == [0, 51, 80, 101, 160]
    assert evaluation.results.returns.shape == (3, 3)
    model.learn(40, callback=[RegimeClock(), evaluation])
    assert [one.step for one in evaluation.evaluations] == [0, 40]


def test_recurrent_policies_begin_each_episode_afresh():
    settings = PPO_SMALL | {"policy_kwargs": {"lstm_hidden_size": 8}}
    model = RecurrentPPO("MlpLstmPolicy", DummyVecEnv([pendulum]), **settings)
    many = FrozenRegimes(pendulum, 3, 0, lambda: False).returns(model, [0, 1, 2, 3])  # more jobs than environments
    for regime in (0, 3):
        alone = FrozenRegimes(pendulum, 3, 0, lambda: False)
        np.testing.assert_allclose(alone.returns(model, [regime])[regime], many[regime], rtol=1e-3)


def test_observations_are_normalised_as_in_training_and_the_statistics_left_alone():
    venv = VecNormalize(make_vec_env(pendulum, 2, seed=0))
    model = PPO("MlpPolicy", venv, **PPO_SMALL)
    venv.obs_rms.mean[:] = 1e6  # whatever is observed, the policy sees the lowest there is
    seen, predict = [], model.predict

    def watched(observations, *rest, **more):
        seen.append(observations)
        return predict(observations, *rest, **more)

    model.predict = watched
    FrozenRegimes(pendulum, 1, 0, lambda: False).returns(model, [0])
    assert all((observations == -10).all() for observations in seen)
    assert (venv.obs_rms.mean == 1e6).all()


class Killed(Exception):
    pass


class Saving(BaseCallback):
    """Takes the state of other callbacks just before the rollout at one step, and ends the process at another."""

    def __init__(self, at, end, *others):
        super().__init__()
        self.at, self.end, self.others = at, end, others

    def _on_rollout_start(self):
        if self.num_timesteps == self.at:
            self.saved = decode(*encode([one.state_dict() for one in self.others]))

    def _on_step(self):
        if self.num_timesteps == self.end:
            raise Killed
        return True


def resumable(make, at=0, **kwargs):
    """The agent as a checkpoint at that step leaves it: its environments too, whose episodes begin every five steps."""
    rows, env = Rows(), make_vec_env(make, 1)
    model = PPO("MlpPolicy", env, **PPO_SMALL | {"n_steps": 20, "batch_size": 20})
    model.set_logger(Logger(None, [rows]))
    model.num_timesteps = at
    if at:
        env.reset()
        env.env_method("set_clock", at, stride=1)
        env.env_method("set_clock", at + 1000)
        env.env_method("set_clock", at)
        model._last_obs = env.reset()
        model._last_episode_starts = np.ones(1, bool)
    return model, [RegimeClock(), ForgettingEvaluation(make, **{"episodes": 2, "window": 1} | kwargs)], rows


@pytest.mark.parametrize("at", [0, 20, 60, 100, 120])
@pytest.mark.parametrize("every", [None, 30])
def test_a_run_that_is_killed_and_resumed_is_tested_like_one_that_is_not(at, every, monkeypatch):
    notices = []
    monkeypatch.setattr("agents.clock.notice_change", lambda policy: notices.append(1))

    def make():
        return paying(to="list:9,2,4")

    model, whole, rows = resumable(make, every=every)
    model.learn(160, callback=whole)
    ours = [row for row in rows.rows if "evaluation/return_on_regime_0" in row[1]]
    assert len(notices) == 2
    assert [step for step, _ in whole[0].changes] == [0, 51, 101]

    model, killed, before = resumable(make, every=every)
    saving = Saving(at, at + 15, *killed)
    with pytest.raises(Killed):
        model.learn(160, callback=[*killed, saving])
    count = sum("evaluation/return_on_regime_0" in row and step <= at for step, row, _ in before.rows)
    told = sum(step <= at for step, _ in killed[0].changes) - 1
    notices.clear()
    model, resumed, after = resumable(make, at, every=every)
    for callback, state in zip(resumed, saving.saved, strict=True):
        callback.load_state_dict(state)
    model.learn(160 - at, callback=resumed, reset_num_timesteps=False)
    assert len(notices) == 2 - told
    for one, other in zip(resumed, whole, strict=True):
        assert one.state_dict() == other.state_dict()
    assert [row for row in after.rows if "evaluation/return_on_regime_0" in row[1]] == ours[count:]
    assert resumed[1].best == (every or 51, 45.0)
    assert {row[1]["evaluation/best_average_return"] for row in ours[count:] if row[0] > 51} == {45.0}
    np.testing.assert_array_equal(resumed[1].results.recovery, whole[1].results.recovery)


def test_the_best_test_is_that_of_the_trained_agent_on_the_regimes_met():
    model, callbacks, rows = resumable(lambda: paying(to="list:1,4,2"))
    model.learn(160, callback=callbacks)
    logged = [row.get("evaluation/best_average_return") for _, row, _ in rows.rows if "evaluation/forgetting" in row]
    seen = [row["evaluation/average_return"] for _, row, _ in rows.rows if "evaluation/average_return" in row]
    assert seen == pytest.approx([5, (5 + 20) / 2, (5 + 20 + 10) / 3])
    assert logged == [12.5, 12.5]  # not 20 or so of the agent before its first step
    assert callbacks[1].best == (101, 12.5)
    model.learn(40, callback=callbacks)
    assert callbacks[1].best == (40, 5.0)  # from the beginning


def test_a_test_that_was_given_up_is_told_of():
    evaluation = evaluated(paying, 60)
    assert not evaluation.incomplete
    for when in ("test", "fresh agent"):
        stopping = ForgettingEvaluation(paying, 2, stop=lambda: True)
        if when == "fresh agent":
            stopping = ForgettingEvaluation(paying, 2, fresh=lambda venv, seed: None, stop=lambda: True)
            stopping._test = lambda *args: None
        model = PPO("MlpPolicy", make_vec_env(paying, 1), **PPO_SMALL | {"n_steps": 20, "batch_size": 20})
        model.learn(20, callback=[RegimeClock(), stopping])
        assert stopping.incomplete, when


def test_the_episodes_of_a_long_run_are_two_lists_in_its_checkpoint():
    evaluation = evaluated(paying, 60)
    (first, *_), state = evaluation.stretches.values(), evaluation.state_dict()
    assert state["stretches"][0]["steps"] == [step for step, _ in first.episodes]
    assert state["stretches"][0]["returns"] == [total for _, total in first.episodes]
    assert {type(step) for step in state["stretches"][0]["steps"]} == {int}
    assert {type(total) for total in state["stretches"][0]["returns"]} == {float}
