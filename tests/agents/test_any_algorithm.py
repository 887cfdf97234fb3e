"""Plasticity for any algorithm: equal to stock until a method acts, alive in every network, saved and loaded."""

from __future__ import annotations

import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest
import sb3_contrib
import stable_baselines3 as sb3
import torch
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.utils import set_random_seed
from torch import nn

import agents
from agents import PlasticityMonitor, add_plasticity, plastic
from agents.optimizers import owners
from plasticity import SettingsError, UnitAdam
from tests.agents.algorithms import CASES
from tests.agents.models import ContinuousImages, Images, replaced, weights
from tests.agents.test_options import Ask

IDLE = {"cbp": {"replacement_rate": 0.0}}
CBP = {"cbp": {"replacement_rate": 0.2, "maturity": 0}}  # TRPO's policy makes two steps only
cases = pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))


@cases
def test_idle_it_equals_stock_also_when_added_in_the_midst_of_training(case):
    def go_on(model):
        set_random_seed(7)
        return model.learn(case.steps, reset_num_timesteps=False)

    stock = go_on(case.make(stock=True))
    added = add_plasticity(go_on(case.make(stock=True)), IDLE)
    built = go_on(case.make(plasticity=IDLE))
    assert torch.equal(weights(added), weights(stock))
    assert torch.equal(weights(built), weights(stock))
    for model in (stock, added, built):
        go_on(model)
    assert torch.equal(weights(added), weights(stock))
    assert torch.equal(weights(built), weights(stock))
    stocks = {type(owner.optimizer) for owner in owners(stock.policy)}
    ours = {torch.optim.Adam: UnitAdam, torch.optim.RMSprop: torch.optim.RMSprop}
    for model in (added, built):
        assert {type(owner.optimizer) for owner in owners(model.policy)} == {ours[kind] for kind in stocks}


@cases
def test_methods_act_on_every_network_and_are_saved_and_loaded(case, tmp_path):
    model = add_plasticity(case.make(stock=True), CBP).learn(case.steps)
    assert set(replaced(model)) == set(case.networks)
    assert all(count > 0 for count in replaced(model).values())
    built = case.make(plasticity=CBP).learn(case.steps)
    assert torch.equal(weights(built), weights(model))  # the same seed: model and methods
    for which in (model, built):
        which.save(tmp_path / "agent")
        loaded = plastic(case.algorithm).load(tmp_path / "agent", env=case.environment())
        assert torch.equal(weights(loaded), weights(model))
        observations = np.stack([model.observation_space.sample() for _ in range(5)])
        assert np.array_equal(
            model.predict(observations, deterministic=True)[0], loaded.predict(observations, deterministic=True)[0]
        )
        assert replaced(loaded) == replaced(model)
    loaded.learn(case.steps, reset_num_timesteps=False)
    assert all(replaced(loaded)[name] > replaced(model)[name] for name in case.networks)
    warm = case.make(plasticity=CBP).warm_start(tmp_path / "agent", optimizer=True)
    assert torch.equal(weights(warm), weights(model))


@cases
def test_every_parameter_that_is_trained_belongs_to_one_network(case):
    model = case.make(plasticity="l2")
    owned = [parameter for network in model.policy.networks.values() for parameter in network.parameters(log_std=True)]
    assert len(owned) == len({id(parameter) for parameter in owned})
    trained = {
        id(parameter)
        for name, parameter in model.policy.named_parameters()
        if "_target" not in name and "lstm" not in name
    }
    assert {id(parameter) for parameter in owned} == trained


@cases
def test_the_monitor_measures_every_network(case):
    class Log(Logger):
        seen: set[str] = set()  # noqa: RUF012

        def record(self, key, value, exclude=None):
            self.seen.add(key)
            super().record(key, value, exclude)

    for make in (lambda: case.make(plasticity=CBP), lambda: add_plasticity(case.make(stock=True), CBP)):
        model, log = make(), Log(None, [])
        model.set_logger(log)
        model.learn(case.steps, callback=PlasticityMonitor(every=30, probe_size=20))
        for name in case.networks:
            for metric in ("effective_rank", "probe_dead_fraction", "weight_magnitude", "replaced"):
                assert any(key.startswith(f"plasticity/{name}/") and key.endswith(metric) for key in log.seen)


def outputs(model, observations):
    """What the networks put out together, without random numbers."""
    policy, found = model.policy, []
    tensor = torch.as_tensor(observations)
    heads = [policy.action_net, policy.value_net] if hasattr(policy, "action_net") else []
    handles = [head.register_forward_hook(lambda module, args, output: found.append(output)) for head in heads]
    if not heads:
        last = [module for name, module in policy.named_modules() if "_target" not in name]
        layers = [module for module in last if isinstance(module, nn.Linear)]
        handles = [layer.register_forward_hook(lambda module, args, output: found.append(output)) for layer in layers]
    with torch.no_grad():
        if hasattr(policy, "lstm_actor"):
            policy.forward_networks(tensor, None)
        elif heads:
            policy(tensor, deterministic=True)
        else:
            policy.forward_networks(tensor, torch.zeros(len(tensor), *model.action_space.shape))
    for handle in handles:
        handle.remove()
    return found


@cases
def test_a_silenced_unit_has_no_say_any_more(case):
    """Without a description of the networks: perturb the unit's own bias, and look at all that comes after."""
    model = case.make(plasticity=None)
    observations = np.stack([model.observation_space.sample() for _ in range(4)]).astype(np.float32)
    observations = np.clip(observations, -3, 3)
    for network in model.policy.networks.values():
        for layer in network.layers:
            with torch.no_grad():
                layer.bias[1] += 0.5  # above the kink of a ReLU for some row
                mask = torch.arange(layer.units) == 1
                for reader in layer.readers:
                    assert (reader.linear.weight[:, 1] != 0).any()
                    reader.columns(layer.units)[mask] = 0
            before = outputs(model, observations)
            with torch.no_grad():
                layer.bias[1] += 0.7
            after = outputs(model, observations)
            differing = [
                (one != two).any(0).nonzero().flatten().tolist()
                for one, two in zip(before, after, strict=True)
                if not torch.equal(one, two)
            ]
            assert differing in ([], [[1]])  # nothing but the unit itself
    assert outputs(model, observations)


def test_the_lstms_read_a_silenced_feature_no_more():
    for shared in (True, False):
        kwargs = {"lstm_hidden_size": 8, "share_features_extractor": shared}
        model = plastic(sb3_contrib.RecurrentPPO)("CnnLstmPolicy", Images(), policy_kwargs=kwargs, device="cpu", seed=0)
        names = {"features"} if shared else {"pi_features", "vf_features"}
        assert set(model.policy.networks) == names  # NatureCNN, and no hidden layers after the LSTMs
        observations, _ = model.policy.obs_to_tensor(np.stack([model.observation_space.sample() for _ in range(3)]))
        for network in model.policy.networks.values():
            layer = network.layers[-1]
            assert layer.units == 512
            mask = torch.arange(512) == 3
            with torch.no_grad():
                layer.bias[3] += 1
                silent = [reader.columns(512) for reader in layer.readers]
                for columns in silent:
                    columns[mask] = 0
            before = [h.clone() for h in outputs(model, observations)]
            with torch.no_grad():
                layer.bias[3] += 1
            assert all(torch.equal(one, two) for one, two in zip(before, outputs(model, observations), strict=True))
            with torch.no_grad():
                silent[0][mask] = 1
            assert not all(torch.equal(one, two) for one, two in zip(before, outputs(model, observations), strict=True))


@pytest.mark.parametrize("critic_lstm", [{"shared_lstm": True}, {}])
def test_recurrent_policies_whose_critic_has_no_lstm_of_its_own(critic_lstm):
    kwargs = {"lstm_hidden_size": 8, "enable_critic_lstm": False, "net_arch": [6]} | critic_lstm
    small = {"n_steps": 32, "batch_size": 16, "n_epochs": 2, "device": "cpu", "seed": 0}
    stock = sb3_contrib.RecurrentPPO("CnnLstmPolicy", Images(), policy_kwargs=kwargs, **small)
    model = add_plasticity(stock, CBP).learn(64)
    assert set(replaced(model)) == {"pi", "vf", "features"}
    assert all(count > 0 for count in replaced(model).values())


@pytest.mark.parametrize(
    ("algorithm", "env", "names"),
    [
        (sb3.TD3, ContinuousImages, {"actor", "qf_features", "qf0", "qf1"}),
        (sb3.DQN, Images, {"q_net"}),
        (sb3_contrib.QRDQN, Images, {"quantile_net"}),
        (sb3_contrib.MaskablePPO, Images, {"features"}),
    ],
)
def test_images(algorithm, env, names, tmp_path):
    size = {} if "PPO" in algorithm.__name__ else {"buffer_size": 60, "learning_starts": 20}
    model = plastic(algorithm)("CnnPolicy", env(), plasticity=Ask(layer_norm=True), device="cpu", seed=0, **size)
    assert set(model.policy.networks) == names
    targets = [name for name, _ in model.policy.named_children() if name.endswith("_target")]
    for name in targets:
        one, two = getattr(model.policy, name), getattr(model.policy, name.removesuffix("_target"))
        assert all(torch.equal(p, q) for p, q in zip(one.parameters(), two.parameters(), strict=True))
        assert sum(isinstance(module, (nn.LayerNorm, nn.GroupNorm)) for module in one.modules()) > 3
    if targets:
        model.learn(30)
    model.save(tmp_path / "agent")
    assert torch.equal(weights(plastic(algorithm).load(tmp_path / "agent")), weights(model))


@pytest.mark.parametrize("mode", ["leave", "sync"])
@pytest.mark.parametrize("name", ["TD3", "DQN", "TQC"])
def test_target_networks_lag_or_follow_at_once(name, mode):
    methods = {"cbp": {"replacement_rate": 0.5, "maturity": 0}}
    frozen = {"tau": 0.0} if name != "DQN" else {}
    case = CASES[name]
    model = plastic(case.algorithm)(
        "MlpPolicy",
        case.env,
        plasticity=methods,
        policy_kwargs={"net_arch": [12, 8], "target_critic": mode},
        seed=0,
        learning_starts=30,
        train_freq=2,
        **frozen,
    ).learn(36)
    networks = [network for network in model.policy.networks.values() if network.twins]
    assert len(networks) == {"TD3": 3, "DQN": 1, "TQC": 2}[name]
    for network in networks:
        layer, twin = network.layers[0], network.twins["0"]
        young = model.policy.plasticity[network.name][0].state(layer).age == 0
        assert young.any()
        assert torch.equal(twin.weight[young], layer.weight[young]) == (mode == "sync")


def test_trpo_counts_its_own_updates():
    """The policy moves once in an update; the critic with every step of the optimizer."""
    model = CASES["TRPO"].make(plasticity={"cbp": {"replacement_rate": 0.0}}).learn(192)
    ages = {name: int(methods[0].layers["0"].age.max()) for name, methods in model.policy.plasticity.items()}
    assert ages == {"pi": 3, "vf": 3 * model.n_critic_updates * 2}


def test_trpo_does_not_differentiate_what_methods_hold():
    """It asks for the gradient of every parameter of the policy, and an injection holds frozen copies."""
    model = CASES["TRPO"].make(plasticity={"plasticity_injection": {"period": 1}}).learn(128)
    assert all(methods[0].telemetry() == {"injected": 1.0} for methods in model.policy.plasticity.values())
    assert any(key.startswith("plasticity.") and key.endswith("weight") for key in model.policy.state_dict())
    assert not any(name.startswith("plasticity.") for name, _ in model.policy.named_parameters())


def test_ours_are_what_plastic_makes_of_stock():
    assert plastic(sb3.PPO) is agents.PPO
    assert plastic(sb3.SAC) is agents.SAC
    assert plastic(agents.PPO) is agents.PPO
    assert plastic(sb3.TD3) is plastic(sb3.TD3)
    assert type(add_plasticity(sb3.PPO("MlpPolicy", "CartPole-v1"))) is agents.PPO


def test_adding_leaves_the_settings_of_the_optimizer_and_the_users_dictionary():
    kwargs = {
        "net_arch": [8],
        "optimizer_class": torch.optim.AdamW,
        "optimizer_kwargs": {"weight_decay": 0.3, "betas": (0.5, 0.6)},
    }
    given = dict(kwargs)
    model = add_plasticity(sb3.PPO("MlpPolicy", "CartPole-v1", policy_kwargs=kwargs, n_steps=64, seed=3), "cbp")
    group = model.policy.optimizer.param_groups[0]
    assert isinstance(model.policy.optimizer, UnitAdam)
    assert (group["weight_decay"], group["betas"], group["decoupled"], group["eps"]) == (0.3, (0.5, 0.6), True, 1e-8)
    assert kwargs == given
    assert model.policy_kwargs["plasticity_seed"] == 3
    kept = sb3.PPO("MlpPolicy", "CartPole-v1", policy_kwargs={"optimizer_kwargs": {"amsgrad": True}})
    assert type(add_plasticity(kept, "l2").policy.optimizer) is torch.optim.Adam


def test_a_class_made_on_the_spot_loads_in_another_process(tmp_path):
    model = CASES["TD3"].make(plasticity=CBP).learn(40)
    model.save(tmp_path / "agent")
    code = (
        "import sys, stable_baselines3 as sb3\n"
        "from agents import plastic\n"
        "model = plastic(sb3.TD3).load(sys.argv[1], device='cpu')\n"
        "print(type(model.policy).__name__, *model.policy.networks, 'sb3_contrib' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "agent")], capture_output=True, text=True)
    assert done.stdout.split() == ["PlasticTD3Policy", "actor", "qf0", "qf1", "False"], done.stderr


def test_what_cannot_be_is_refused_and_the_model_stays_as_it_was():
    model = sb3_contrib.CrossQ("MlpPolicy", "Pendulum-v1")
    with pytest.raises(ValueError, match=r"module 0 \(BatchRenorm1d.*cannot be replaced one by one"):
        add_plasticity(model)
    assert type(model) is sb3_contrib.CrossQ
    with pytest.raises(ValueError, match=r"ARSPolicy has none of the structures that are known .*describe its net"):
        add_plasticity(sb3_contrib.ARS("MlpPolicy", "Pendulum-v1"))
    with pytest.raises(ValueError, match="has none of the structures that are known"):
        plastic(sb3_contrib.ARS)("MlpPolicy", "Pendulum-v1")

    class Two(gym.Env):
        observation_space = gym.spaces.Dict({"a": gym.spaces.Box(-1, 1, (2,))})
        action_space = gym.spaces.Discrete(2)

    model = sb3.PPO("MultiInputPolicy", Two())
    with pytest.raises(ValueError, match=r"no plasticity for dictionary observations yet; flatten them"):
        add_plasticity(model)
    assert type(model) is sb3.PPO
    with pytest.raises(ValueError, match=r"PlasticTD3 has no policy for dictionary observations yet; flatten them"):
        plastic(sb3.TD3)("MultiInputPolicy", "Pendulum-v1")

    ours = agents.PPO("MlpPolicy", "CartPole-v1")
    with pytest.raises(ValueError, match="this PPO has plasticity already"):
        add_plasticity(ours)
    stock = sb3.PPO("MlpPolicy", "CartPole-v1", n_steps=32, batch_size=32, n_epochs=1)
    with pytest.raises(SettingsError, match='unknown method "cpb"'):
        add_plasticity(stock, "cpb")
    with pytest.raises(ValueError, match="its architecture can change before training only"):
        add_plasticity(stock.learn(32), Ask(layer_norm=True))
    assert type(stock) is sb3.PPO
    assert type(stock.policy.optimizer) is torch.optim.Adam
    fresh = add_plasticity(sb3.PPO("MlpPolicy", "CartPole-v1"), Ask(layer_norm=True))
    assert fresh.policy.networks["pi"].layers[0].norm is not None
