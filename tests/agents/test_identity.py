"""Nothing of ours changes stock SB3's training until a method acts: bit for bit."""

import random

import numpy as np
import pytest
import stable_baselines3 as sb3
import torch

from agents import PPO, SAC, PlasticActorCriticPolicy, PlasticityMonitor, PlasticSACPolicy
from tests.agents.models import CBP, PPO_SMALL, SAC_NET, SAC_SMALL, Images, ppo, replaced, sac, weights

IDLE = {"cbp": {"replacement_rate": 0.0}}


@pytest.mark.parametrize("plasticity", [None, IDLE, {"l2": {"strength": 0.0}}])
@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1"])
def test_ppo_by_default_equals_stock_ppo(env, plasticity):
    stock = sb3.PPO("MlpPolicy", env, **PPO_SMALL).learn(256)
    assert torch.equal(weights(ppo(env, plasticity=plasticity).learn(256)), weights(stock))


@pytest.mark.parametrize("plasticity", [None, IDLE])
def test_sac_by_default_equals_stock_sac(plasticity):
    stock = sb3.SAC("MlpPolicy", "Pendulum-v1", policy_kwargs=SAC_NET, **SAC_SMALL).learn(120)
    assert torch.equal(weights(sac(plasticity=plasticity).learn(120)), weights(stock))


def test_with_the_optimizer_of_stock_on_both_sides():
    pk = {"plasticity": IDLE, "optimizer_class": torch.optim.Adam}
    stock = sb3.PPO("MlpPolicy", "CartPole-v1", **PPO_SMALL).learn(256)
    ours = sb3.PPO(PlasticActorCriticPolicy, "CartPole-v1", policy_kwargs=pk, **PPO_SMALL).learn(256)
    assert torch.equal(weights(ours), weights(stock))
    stock = sb3.SAC("MlpPolicy", "Pendulum-v1", policy_kwargs=SAC_NET, **SAC_SMALL).learn(120)
    ours = sb3.SAC(PlasticSACPolicy, "Pendulum-v1", policy_kwargs=SAC_NET | pk, **SAC_SMALL).learn(120)
    assert torch.equal(weights(ours), weights(stock))


def test_a2c_with_rmsprop_equals_stock_a2c_and_its_units_can_be_replaced():
    kwargs = {"n_steps": 16, "seed": 0, "device": "cpu"}
    stock = sb3.A2C("MlpPolicy", "CartPole-v1", **kwargs).learn(320)
    ours = sb3.A2C(PlasticActorCriticPolicy, "CartPole-v1", policy_kwargs={"plasticity": IDLE}, **kwargs).learn(320)
    assert isinstance(ours.policy.optimizer, torch.optim.RMSprop)
    assert torch.equal(weights(ours), weights(stock))
    live = sb3.A2C(PlasticActorCriticPolicy, "CartPole-v1", policy_kwargs={"plasticity": CBP}, **kwargs).learn(320)
    assert all(count > 0 for count in replaced(live).values())
    assert not torch.equal(weights(live), weights(stock))


def test_images():
    stock = sb3.PPO("CnnPolicy", Images(), **PPO_SMALL).learn(64)
    ours = ppo(Images(), policy="CnnPolicy", plasticity=IDLE).learn(64)
    assert torch.equal(weights(ours), weights(stock))


def test_the_same_betas_keep_sb3s_eps():
    stock_kwargs = {"optimizer_kwargs": {"betas": (0.9, 0.99), "eps": 1e-5}}
    stock = sb3.PPO("MlpPolicy", "CartPole-v1", policy_kwargs=stock_kwargs, **PPO_SMALL).learn(128)
    ours = ppo(policy_kwargs={"optimizer_kwargs": {"betas": (0.9, 0.99)}}).learn(128)
    assert ours.policy.optimizer.param_groups[0]["eps"] == 1e-5
    assert torch.equal(weights(ours), weights(stock))
    assert sac().actor.optimizer.param_groups[0]["eps"] == 1e-8


@pytest.mark.parametrize("plasticity", [None, CBP])
def test_watching_changes_nothing(plasticity):
    watched = ppo(plasticity=plasticity).learn(256, callback=PlasticityMonitor(probe_size=64))
    assert torch.equal(weights(watched), weights(ppo(plasticity=plasticity).learn(256)))
    watched = sac(plasticity=plasticity).learn(90, callback=PlasticityMonitor(every=10, probe_size=32))
    assert torch.equal(weights(watched), weights(sac(plasticity=plasticity).learn(90)))


@pytest.mark.usefixtures("short_probe")
@pytest.mark.parametrize(("make", "steps", "every"), [(ppo, 128, None), (sac, 90, 50)])
def test_watching_with_everything_on_changes_nothing(make, steps, every):
    monitor = PlasticityMonitor(every, probe_size=32, probe_every=1, landscape=True, histograms=True)
    watched, plain = make(plasticity=CBP).learn(steps, callback=monitor), make(plasticity=CBP).learn(steps)
    assert torch.equal(weights(watched), weights(plain))
    streams = global_streams()
    monitor._last = None  # measure now
    monitor.on_rollout_end()
    assert global_streams() == streams


def global_streams():
    return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002


@pytest.mark.parametrize(("make", "steps"), [(ppo, 192), (sac, 70)])
def test_methods_act_on_every_network_and_the_seeded_run_repeats(make, steps):
    one, two = make(plasticity=CBP).learn(steps), make(plasticity=CBP).learn(steps)
    assert all(count > 0 for count in replaced(one).values())
    assert torch.equal(weights(one), weights(two))
    assert not torch.equal(weights(one), weights(make(plasticity=CBP, seed=1).learn(steps)))


def test_without_a_seed_methods_differ_from_run_to_run():
    seeds = {PPO("MlpPolicy", "CartPole-v1", plasticity="cbp").policy_kwargs["plasticity_seed"] for _ in range(3)}
    assert len(seeds) == 3


def test_twin_critics_draw_different_units():
    model = sac(plasticity=CBP)
    states = [model.policy.plasticity[name].state_dict() for name in ("qf0", "qf1")]
    key = "0.random._extra_state"
    assert not torch.equal(states[0][key], states[1][key])


def test_our_initialisation_is_drawn_for_every_layer_and_the_target_follows():
    model = sac(policy_kwargs={"init": "lecun"})
    weight = model.critic.qf0[0].weight
    bound = (3 / weight.shape[1]) ** 0.5
    assert 0.9 * bound < weight.abs().max() <= bound
    assert (model.critic.qf0[0].bias == 0).all()
    assert torch.equal(model.critic_target.qf0[0].weight, weight)
    assert torch.equal(
        SAC("MlpPolicy", "Pendulum-v1", seed=0).actor.mu.weight,
        sb3.SAC("MlpPolicy", "Pendulum-v1", seed=0).actor.mu.weight,
    )
