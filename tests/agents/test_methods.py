"""Every method of the registry in every kind of agent: it builds, trains, is saved and loaded, and lets log_std be."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

from plasticity import METHODS
from plasticity.intervention import Chain
from tests.agents.models import ContinuousImages, Images, ppo, sac, weights
from tests.plasticity.rows import ROWS

PPO_TINY = {"n_steps": 32, "batch_size": 16, "n_epochs": 2}  # 4 gradient steps a rollout
SAC_TINY = {"learning_starts": 10, "batch_size": 4, "buffer_size": 40}
AGENTS = {
    "PPO MLP": lambda plasticity: ppo(
        "Pendulum-v1", plasticity=plasticity, policy_kwargs={"net_arch": [16, 16]}, **PPO_TINY
    ),
    "SAC MLP": lambda plasticity: sac(plasticity=plasticity, **SAC_TINY),
    "PPO CNN": lambda plasticity: ppo(Images(), policy="CnnPolicy", plasticity=plasticity, **PPO_TINY),
    "SAC CNN": lambda plasticity: sac(ContinuousImages(), policy="CnnPolicy", plasticity=plasticity, **SAC_TINY),
}
STEPS = {"PPO MLP": 64, "PPO CNN": 64, "SAC MLP": 20, "SAC CNN": 20}
REFUSED = {
    ("SAC CNN", "churn"): "network 'qf_features' is no function of its inputs alone",  # what reads it reads actions too
}


def trained(agent, plasticity):
    return AGENTS[agent](plasticity).learn(STEPS[agent])


@cache
def plain(agent):
    return weights(trained(agent, None))


def predictions(model):
    random = np.random.default_rng(0)
    shape = model.observation_space.shape
    observations = random.integers(0, 256, (6, *shape)).astype(model.observation_space.dtype)
    if len(shape) == 1:
        observations = (observations / 128 - 1).astype(np.float32)
    return model.predict(observations, deterministic=True)[0]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("agent", AGENTS)
def test_a_method_in_an_agent(agent, method, tmp_path):
    plasticity = {method: ROWS[method].active}
    if (agent, method) in REFUSED:
        with pytest.raises(ValueError, match=REFUSED[agent, method]):
            AGENTS[agent](plasticity)
        return
    model = trained(agent, plasticity)
    found, expected = weights(model), plain(agent)
    assert torch.isfinite(found).all()
    assert found.shape != expected.shape or not torch.equal(found, expected)

    model.save(tmp_path / "agent")
    loaded = type(model).load(tmp_path / "agent", env=model.get_env())
    assert torch.equal(weights(loaded), found)
    assert np.array_equal(predictions(loaded), predictions(model))
    loaded.learn(STEPS[agent], reset_num_timesteps=False)
    after = weights(loaded)
    assert torch.isfinite(after).all()
    assert not torch.equal(after, found)
    assert np.isfinite(predictions(loaded)).all()


@pytest.mark.parametrize("method", METHODS)
def test_the_free_log_std_is_let_be(method, monkeypatch):
    calls = 0

    def watched(original):
        def call(chain, network):
            nonlocal calls
            before = [(p.detach().clone(), None if p.grad is None else p.grad.clone()) for p in network.log_std]
            original(chain, network)
            for parameter, (value, gradient) in zip(network.log_std, before, strict=True):
                calls += 1
                assert torch.equal(parameter, value)
                assert (parameter.grad is None) == (gradient is None)
                assert gradient is None or torch.equal(parameter.grad, gradient)

        return call

    monkeypatch.setattr(Chain, "before_step", watched(Chain.before_step))
    monkeypatch.setattr(Chain, "after_step", watched(Chain.after_step))
    trained("PPO MLP", {method: ROWS[method].active})
    assert calls == 16  # before and after each of 8 gradient steps
