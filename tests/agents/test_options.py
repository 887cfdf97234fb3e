"""What methods ask of a network before training reaches the agents' networks, target networks included."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import stable_baselines3 as sb3
import torch
from torch import nn

from agents import SAC
from plasticity import ContinualBackpropConfig, CReLU, Fourier, Idle, NetworkOptions, SettingsError
from tests.agents.models import PPO_SMALL, ContinuousImages, Images, ppo, replaced, sac, weights


@dataclass(frozen=True)
class Ask:
    """A method that does nothing but ask."""

    activation: type[nn.Module] | None = None
    layer_norm: bool = False
    betas: tuple[float, float] | None = None

    def options(self):
        return NetworkOptions(self.activation, self.layer_norm, self.betas)

    def build(self, network, seed):
        return Idle()


# doubled activations do not take the mean transfer, of which continual backprop warns
REPLACE = ContinualBackpropConfig(replacement_rate=0.05, maturity=2, mean_transfer=False)


def sac_images(shared, **kwargs):
    return sac(
        ContinuousImages(),
        policy="CnnPolicy",
        buffer_size=60,
        policy_kwargs={"share_features_extractor": shared},
        **kwargs,
    )


BUILD = {
    "ppo": lambda **kwargs: ppo(**kwargs),
    "sac": lambda **kwargs: sac(**kwargs),
    "ppo cnn": lambda **kwargs: ppo(Images(), policy="CnnPolicy", policy_kwargs={"net_arch": [6]}, **kwargs),
    "sac cnn": lambda **kwargs: sac_images(False, **kwargs),
    "sac cnn shared": lambda **kwargs: sac_images(True, **kwargs),
}
ASKS = {
    "crelu": Ask(CReLU),
    "fourier normalised": Ask(Fourier, layer_norm=True),
    "normalised": Ask(layer_norm=True),
    "silu": Ask(nn.SiLU),
}


def target_equals(model):
    return all(
        torch.equal(one, two)
        for one, two in zip(model.critic.parameters(), model.critic_target.parameters(), strict=True)
    )


@pytest.mark.parametrize("build", BUILD)
@pytest.mark.parametrize("ask", ASKS)
def test_every_hidden_layer_is_what_was_asked_for_and_is_trained_saved_and_loaded(build, ask, tmp_path):
    asked = ASKS[ask]
    model, plain = BUILD[build](plasticity=[asked, REPLACE]), BUILD[build]()
    copies = getattr(asked.activation, "copies", 1)
    for name, network in model.policy.networks.items():
        for layer, before in zip(network.layers, plain.policy.networks[name].layers, strict=True):
            assert isinstance(layer.activation, asked.activation or type(before.activation))
            assert layer.units * copies == before.units
            assert (layer.norm is not None) == asked.layer_norm
            assert torch.equal(layer.weight, before.weight[: layer.units])
    is_sac = isinstance(model, SAC)
    if is_sac:
        assert target_equals(model)
    held = {id(p) for o in optimizers(model) for group in o.param_groups for p in group["params"]}
    target = {id(p) for p in model.critic_target.parameters()} if is_sac else set()
    assert {id(p) for p in model.policy.parameters() if p.requires_grad} - target == held
    before = [p.detach().clone() for p in model.policy.parameters()]
    model.learn(36 if is_sac else 64)
    moved = [not torch.equal(p, old) for p, old in zip(model.policy.parameters(), before, strict=True)]
    assert all(moved)
    model.save(tmp_path / "agent")
    loaded = type(model).load(tmp_path / "agent", env=model.get_env())
    assert torch.equal(weights(loaded), weights(model))
    observation = model.observation_space.sample()
    assert np.array_equal(*(which.predict(observation, deterministic=True)[0] for which in (model, loaded)))
    loaded.learn(6 if is_sac else 64, reset_num_timesteps=False)
    assert not torch.equal(weights(loaded), weights(model))


def optimizers(model):
    return [model.actor.optimizer, model.critic.optimizer] if isinstance(model, SAC) else [model.policy.optimizer]


@pytest.mark.parametrize(("make", "steps"), [(ppo, 192), (sac, 80)])
def test_units_of_a_rebuilt_network_are_replaced(make, steps):
    model = make(plasticity=[Ask(CReLU, layer_norm=True), REPLACE]).learn(steps)
    assert all(count > 0 for count in replaced(model).values())
    assert torch.isfinite(weights(model)).all()


def test_gsde_noise_of_doubled_units_is_reset_too():
    methods = [Ask(CReLU), replace(REPLACE, replacement_rate=0.2, maturity=0)]
    model = ppo("Pendulum-v1", use_sde=True, plasticity=methods)
    with torch.no_grad():
        model.policy.log_std.fill_(1.0)
    model.learn(64)
    young = model.policy.plasticity["pi"][1].layers["1"].age == 0
    assert young.any()
    assert (model.policy.log_std[young.repeat_interleave(2)] == 0).all()


@pytest.mark.parametrize("make", [ppo, sac])
def test_the_initialisation_is_drawn_after_the_rebuilding(make):
    model = make(plasticity=Ask(CReLU), policy_kwargs={"init": "lecun"})
    for network in model.policy.networks.values():
        layer = network.layers[1]
        bound = (3 / layer.weight.shape[1]) ** 0.5
        assert 0.8 * bound < layer.weight.abs().max() <= bound
    if make is sac:
        assert target_equals(model)


@pytest.mark.parametrize("make", [ppo, sac])
def test_betas_go_before_those_of_the_settings(make, tmp_path):
    model = make(plasticity=Ask(betas=(0.9, 0.9)), policy_kwargs={"optimizer_kwargs": {"betas": (0.5, 0.6)}})
    eps = 1e-5 if make is ppo else 1e-8
    for optimizer in optimizers(model):
        assert optimizer.param_groups[0]["betas"] == (0.9, 0.9)
        assert optimizer.param_groups[0]["eps"] == eps
    model.learn(64).save(tmp_path / "agent")
    loaded = type(model).load(tmp_path / "agent", env=model.get_env())
    assert optimizers(loaded)[0].param_groups[0]["betas"] == (0.9, 0.9)


def test_betas_train_as_the_same_betas_of_stock_do():
    stock_kwargs = {"optimizer_kwargs": {"betas": (0.9, 0.95), "eps": 1e-5}}
    stock = sb3.PPO("MlpPolicy", "CartPole-v1", policy_kwargs=stock_kwargs, **PPO_SMALL).learn(128)
    assert torch.equal(weights(ppo(plasticity=Ask(betas=(0.9, 0.95))).learn(128)), weights(stock))
    adam = ppo(plasticity=Ask(betas=(0.9, 0.95)), policy_kwargs={"optimizer_class": torch.optim.Adam})
    assert type(adam.policy.optimizer) is torch.optim.Adam
    assert torch.equal(weights(adam.learn(128)), weights(stock))


def test_an_optimizer_without_betas_is_named():
    with pytest.raises(SettingsError, match=r"asks for Adam's betas \(0.9, 0.9\), but SGD has none"):
        ppo(plasticity=Ask(betas=(0.9, 0.9)), policy_kwargs={"optimizer_class": torch.optim.SGD})


@pytest.mark.parametrize("asked", [Ask(CReLU), Ask(layer_norm=True)])
def test_a_warm_start_refuses_another_architecture(asked, tmp_path):
    ppo(plasticity=asked).save(tmp_path / "agent")
    with pytest.raises(ValueError, match=r"does not fit this agent's networks; these weights differ: .*mlp_extractor"):
        ppo().warm_start(tmp_path / "agent")
    ppo(plasticity=asked).warm_start(tmp_path / "agent")


def test_what_does_not_fit_is_refused_when_the_agent_is_built():
    with pytest.raises(ValueError, match=r"CReLU puts out two numbers a unit, so widths must be even; got 5 in layer"):
        ppo(plasticity=Ask(CReLU), policy_kwargs={"net_arch": [5]})
    with pytest.raises(SettingsError, match="two methods ask for different activation"):
        ppo(plasticity=[Ask(CReLU), Ask(Fourier)])
    twice = ppo(plasticity=[Ask(CReLU), Ask(CReLU)])
    assert twice.policy.networks["pi"].layers[0].copies == 2
