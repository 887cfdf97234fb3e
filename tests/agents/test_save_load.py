"""SB3's own save and load keep everything, and warm starts take weights only."""

from __future__ import annotations

import copy

import gymnasium as gym
import numpy as np
import pytest
import stable_baselines3 as sb3
import torch
from stable_baselines3.common.utils import set_random_seed

from agents import PPO, SAC, add_plasticity
from plasticity import L2, ContinualBackpropConfig, UnitAdam
from tests.agents.models import CBP, PPO_SMALL, SAC_NET, SAC_SMALL, Images, ppo, replaced, sac, weights
from tests.plasticity.rows import ROWS

ALL = {"l2": {"strength": 1e-4}, "redo": {"threshold": 0.5, "period": 3}, **CBP, "shrink_and_perturb": {"period": 5}}


def same_state(one, two):
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same_state(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(same_state, one, two))
    return torch.equal(one, two) if isinstance(one, torch.Tensor) else one == two


def gradient_steps(model, steps=6):
    """Train on recorded data alone, so that only the agent's own state matters."""
    set_random_seed(3)
    if isinstance(model, PPO):
        model.policy.set_training_mode(True)
        random = np.random.default_rng(0)
        for _ in range(steps):
            observations = torch.as_tensor(random.standard_normal((16, 4)), dtype=torch.float32)
            values, log_prob, entropy = model.policy.evaluate_actions(observations, torch.zeros(16))
            loss = (values - 1).square().mean() - log_prob.mean() - 0.01 * entropy.mean()
            model.policy.optimizer.zero_grad()
            loss.backward()
            model.policy.optimizer.step()
    else:
        model.train(steps, batch_size=16)


@pytest.mark.parametrize("methods", [CBP, ALL], ids=["cbp", "all"])
@pytest.mark.parametrize("algorithm", [PPO, SAC])
def test_a_loaded_agent_goes_on_bit_for_bit(algorithm, methods, tmp_path):
    model = (ppo if algorithm is PPO else sac)(plasticity=methods).learn(128)
    model.save(tmp_path / "agent")
    loaded = algorithm.load(tmp_path / "agent", env=model.get_env())
    assert same_state(dict(model.policy.state_dict()), dict(loaded.policy.state_dict()))
    if algorithm is SAC:
        model.save_replay_buffer(tmp_path / "buffer")
        loaded.load_replay_buffer(tmp_path / "buffer")
        loaded.set_logger(model.logger)
    before = replaced(loaded)
    gradient_steps(model), gradient_steps(loaded)
    assert torch.equal(weights(model), weights(loaded))
    assert same_state(dict(model.policy.state_dict()), dict(loaded.policy.state_dict()))
    assert all(replaced(loaded)[name] > before[name] for name in before)  # alive
    names = ["policy.optimizer"] if algorithm is PPO else ["actor.optimizer", "critic.optimizer"]
    parameters, others = model.get_parameters(), loaded.get_parameters()
    assert all(same_state(parameters[name], others[name]) for name in names)
    loaded.learn(64, reset_num_timesteps=False)
    assert loaded.num_timesteps == 192


def test_the_interventions_of_a_loaded_agent_point_at_its_own_layers(tmp_path):
    model = ppo(plasticity=CBP).learn(64)
    model.save(tmp_path / "agent")
    loaded = PPO.load(tmp_path / "agent", env=model.get_env())
    for network in loaded.policy.networks.values():
        assert network.optimizers == (loaded.policy.optimizer,)
        modules = set(loaded.policy.modules())
        assert all(layer.linear in modules and layer.activation in modules for layer in network.layers)


def test_per_unit_counts_survive(tmp_path):
    model = ppo(plasticity=CBP).learn(128)
    model.save(tmp_path / "agent")
    loaded = PPO.load(tmp_path / "agent", env=model.get_env())
    for ours, theirs in zip(model.policy.parameters(), loaded.policy.parameters(), strict=True):
        assert torch.equal(model.policy.optimizer.steps(ours), loaded.policy.optimizer.steps(theirs))
    counts = loaded.policy.optimizer.steps(loaded.policy.mlp_extractor.policy_net[0].weight)
    assert counts.min() < counts.max()


def test_images_and_single_policies_load_too(tmp_path):
    model = ppo(Images(), policy="CnnPolicy", plasticity=CBP).learn(64)
    model.save(tmp_path / "agent")
    loaded = PPO.load(tmp_path / "agent", env=model.get_env())
    assert same_state(dict(model.policy.state_dict()), dict(loaded.policy.state_dict()))
    model.policy.save(tmp_path / "policy")
    policy = type(model.policy).load(tmp_path / "policy")
    assert same_state(dict(model.policy.state_dict()), dict(policy.state_dict()))


def test_configs_of_ones_own_are_saved_with_the_agent(tmp_path):
    model = ppo(plasticity=[ContinualBackpropConfig(maturity=3, replacement_rate=0.1), Shrinker()]).learn(64)
    model.save(tmp_path / "agent")
    loaded = PPO.load(tmp_path / "agent", env=model.get_env()).learn(64)
    assert isinstance(loaded.policy.plasticity["pi"][1], L2)


class Shrinker:
    def build(self, network, seed):
        return L2(0.1)


def test_a_copy_of_the_policy_does_not_feed_the_original():
    model = ppo(plasticity=CBP)  # SB3's own policies cannot be copied once trained
    model.policy.mlp_extractor(torch.ones(5, 4))
    before = model.policy.networks["pi"].activations["0"].clone()
    copy.deepcopy(model.policy).mlp_extractor(torch.zeros(5, 4))
    assert torch.equal(model.policy.networks["pi"].activations["0"], before)


@pytest.mark.parametrize("algorithm", [PPO, SAC])
def test_stock_checkpoints_start_our_agents_warm(algorithm, tmp_path):
    name, env = algorithm.__name__, "CartPole-v1" if algorithm is PPO else "Pendulum-v1"
    pk = {} if algorithm is PPO else {"policy_kwargs": SAC_NET}
    small = PPO_SMALL if algorithm is PPO else SAC_SMALL
    stock = getattr(sb3, name)("MlpPolicy", env, **pk, **small).learn(128)
    stock.save(tmp_path / "stock")
    build = ppo if algorithm is PPO else sac
    model = build(plasticity=CBP, seed=7).warm_start(tmp_path / "stock.zip")
    assert torch.equal(weights(model), weights(stock))
    optimizer = model.policy.optimizer if algorithm is PPO else model.critic.optimizer
    assert optimizer.state == {}
    model = build(plasticity=CBP, seed=7).warm_start(tmp_path / "stock.zip", optimizer=True)
    optimizer = model.policy.optimizer if algorithm is PPO else model.critic.optimizer
    first = optimizer.param_groups[0]["params"][-1]
    assert isinstance(optimizer, UnitAdam)
    assert (optimizer.steps(first) > 0).all()
    model.learn(128)
    assert all(count > 0 for count in replaced(model).values())


def test_wrong_checkpoints_and_policies_are_named(tmp_path):
    sb3.PPO("MlpPolicy", "CartPole-v1", policy_kwargs={"net_arch": [8]}, device="cpu").save(tmp_path / "small")
    with pytest.raises(
        ValueError, match=r"does not fit this agent's networks; these weights differ: action_net\.weight"
    ):
        ppo(policy_kwargs={"net_arch": [16]}).warm_start(tmp_path / "small.zip")
    with pytest.raises(ValueError, match=r"needs a policy with plasticity, one of .*call warm_start\(path\)"):
        PPO.load(tmp_path / "small", env=gym.make("CartPole-v1"))
    (tmp_path / "no.zip").write_text("nothing")
    with pytest.raises(ValueError, match="is no SB3 checkpoint"):
        ppo().warm_start(tmp_path / "no.zip")
    with pytest.raises(ValueError, match=r"replacement_rate must be in \[0, 1\], got 2"):
        ppo(plasticity={"cbp": {"replacement_rate": 2}})
    with pytest.raises(ValueError, match=r'unknown init "lecum": .*did you mean "lecun"'):
        ppo(policy_kwargs={"init": "lecum"})
    with pytest.raises(ValueError, match=r'unknown target_critic "synch": .*did you mean "sync"'):
        sac(policy_kwargs={"target_critic": "synch"})


@pytest.mark.parametrize("mode", ["leave", "sync"])
def test_target_critics_lag_or_follow_at_once(mode):
    methods = {"cbp": {"replacement_rate": 0.5, "maturity": 0}}
    model = sac(policy_kwargs={"target_critic": mode}, plasticity=methods, tau=0.0)
    model.learn(34)
    layer = model.policy.networks["qf0"].layers[0]
    young = model.policy.plasticity["qf0"][0].state(layer).age == 0
    assert young.any()
    followed = torch.equal(model.critic_target.qf0[0].weight[young], model.critic.qf0[0].weight[young])
    silent = bool((model.critic_target.qf0[2].weight[:, young] == 0).all())
    assert (followed, silent) == (mode == "sync", mode == "sync")


def test_a_warm_start_keeps_our_hyper_parameters_and_finds_the_file_as_saved(tmp_path):
    ppo(policy_kwargs={"optimizer_kwargs": {"betas": (0.5, 0.6), "eps": 1e-3}}).learn(64).save(tmp_path / "agent")
    model = ppo().warm_start(tmp_path / "agent", optimizer=True)
    group = model.policy.optimizer.param_groups[0]
    assert (tuple(group["betas"]), group["eps"]) == ((0.9, 0.999), 1e-5)
    assert (model.policy.optimizer.steps(model.policy.action_net.weight) == 4).all()
    with pytest.raises(ValueError, match="nothing: no such file"):
        model.warm_start(tmp_path / "nothing")


FIRST = ("l2_init", "wasserstein", "spectral", "hare_tortoise", "rigl", "neuroplastic_expansion")


@pytest.mark.parametrize("method", FIRST)
def test_a_warm_start_s_weights_are_the_first_for_methods_that_remember_those(method, tmp_path):
    sb3.PPO("MlpPolicy", "CartPole-v1", **PPO_SMALL | {"learning_rate": 0.05}).learn(128).save(tmp_path / "stock")
    chosen = {method: ROWS[method].active}
    model = ppo(plasticity=chosen, seed=7).warm_start(tmp_path / "stock")
    expected = add_plasticity(sb3.PPO.load(tmp_path / "stock", env=model.get_env()), chosen, seed=7)
    assert same_state(dict(model.policy.state_dict()), dict(expected.policy.state_dict()))


def test_the_first_norms_of_nap_are_those_of_a_warm_start(tmp_path):
    ppo(plasticity="layer_norm", seed=5, learning_rate=0.05).learn(128).save(tmp_path / "agent")
    model = ppo(plasticity="nap", seed=7).warm_start(tmp_path / "agent")
    layers = model.policy.networks["pi"].layers
    norms = list(model.policy.plasticity["pi"][0].norms)
    assert norms == [pytest.approx(layer.weight.norm().item()) for layer in layers]


def test_a_warm_start_leaves_the_scale_of_fresh_weights_alone(tmp_path):
    """Trained weights are larger than those that replaced units are to get."""
    sb3.PPO("MlpPolicy", "CartPole-v1", **PPO_SMALL | {"learning_rate": 0.05}).learn(128).save(tmp_path / "stock")
    chosen = {"shrink_and_perturb": {"period": 3}}
    before = ppo(plasticity=chosen, seed=7).policy.plasticity["pi"].state_dict()
    after = ppo(plasticity=chosen, seed=7).warm_start(tmp_path / "stock").policy.plasticity["pi"].state_dict()
    assert same_state(dict(before), dict(after))


def test_load_does_not_pretend_to_change_the_methods(tmp_path):
    model = ppo()
    model.save(tmp_path / "agent")
    with pytest.raises(ValueError, match=r"load keeps the methods .*warm_start"):
        PPO.load(tmp_path / "agent", env=model.get_env(), plasticity="cbp")


def test_dictionary_observations_are_refused_with_a_way_out():
    with pytest.raises(ValueError, match=r"no policy for dictionary observations yet; flatten them"):
        ppo(policy="MultiInputPolicy")


def test_a_policy_that_moves_keeps_its_methods_alive():
    model = ppo(plasticity=CBP)
    model.policy.double()  # replaces every buffer, as moving to a device does
    for _ in range(6):
        latent_pi, latent_vf = model.policy.mlp_extractor(torch.ones(8, 4, dtype=torch.float64))  # SB3 casts inputs
        model.policy.optimizer.zero_grad()
        (model.policy.action_net(latent_pi).sum() + model.policy.value_net(latent_vf).sum()).backward()
        model.policy.optimizer.step()
    assert all(count > 0 for count in replaced(model).values())
    assert model.policy.plasticity["pi"][0].layers["0"].utility.dtype == torch.float64
