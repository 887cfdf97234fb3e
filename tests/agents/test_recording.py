"""What the methods look at are the activations of the gradient's own pass."""

from __future__ import annotations

import gymnasium as gym
import torch
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from torch import nn

from plasticity import Intervention
from tests.agents.models import CBP, ContinuousImages, ppo, sac


class Spy(nn.Module, Intervention):
    """Keeps the activations each step was based on."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def after_step(self, network):
        self.seen.append({name: value.clone() for name, value in network.activations.items()})


class SpyConfig:
    def build(self, network, seed):
        return Spy()


def test_ppo_uses_the_minibatch_that_the_gradient_came_from(monkeypatch):
    model = ppo(plasticity=SpyConfig())
    batches, evaluate = [], type(model.policy).evaluate_actions

    def evaluate_actions(policy, observations, actions):
        batches.append((observations.clone(), {k: v.clone() for k, v in policy.state_dict().items()}))
        return evaluate(policy, observations, actions)

    monkeypatch.setattr(type(model.policy), "evaluate_actions", evaluate_actions)
    model.learn(64)
    spies = {name: chain[0] for name, chain in model.policy.plasticity.items()}
    assert len(batches) == len(spies["pi"].seen) == 4  # 64 steps, 2 epochs, minibatches of 32
    for i, (observations, state) in enumerate(batches):
        for name, part in (("pi", "policy_net"), ("vf", "value_net")):
            key = f"mlp_extractor.{part}.0"
            expected = torch.tanh(observations @ state[f"{key}.weight"].T + state[f"{key}.bias"])
            assert torch.allclose(spies[name].seen[i]["0"], expected, atol=1e-6)


def test_sac_uses_the_losses_own_passes_and_neither_targets_nor_the_other_loss(monkeypatch):
    model = sac(plasticity=SpyConfig())
    inputs = {"critic": [], "actor": []}
    sample = type(model.replay_buffer).sample

    def record(buffer, *args, **kwargs):
        data = sample(buffer, *args, **kwargs)
        critic, actor = model.critic.state_dict(), model.actor.state_dict()
        inputs["critic"].append(
            (torch.cat([data.observations, data.actions], 1), {k: v.clone() for k, v in critic.items()})
        )
        inputs["actor"].append((data.observations, {k: v.clone() for k, v in actor.items()}))
        return data

    monkeypatch.setattr(type(model.replay_buffer), "sample", record)
    model.learn(36)
    assert len(inputs["actor"]) >= 5
    for name, source, key in (
        ("actor", "actor", "latent_pi.0"),
        ("qf0", "critic", "qf0.0"),
        ("qf1", "critic", "qf1.0"),
    ):
        seen = model.policy.plasticity[name][0].seen
        assert len(seen) == len(inputs[source])
        for recorded, (x, state) in zip(seen, inputs[source], strict=True):
            expected = torch.relu(x @ state[f"{key}.weight"].T + state[f"{key}.bias"])
            assert torch.allclose(recorded["0"], expected, atol=1e-6)


def state_of(model):
    return {key: value.clone() for key, value in model.policy.plasticity.state_dict().items()}


def recorded(model):
    return {n: {k: v.clone() for k, v in net.activations.items()} for n, net in model.policy.networks.items()}


def test_evaluation_rollouts_and_metrics_leave_everything_untouched():
    images = sac(
        ContinuousImages(), policy="CnnPolicy", buffer_size=100, plasticity=CBP
    )  # its critics enable gradients
    for model, env in (
        (ppo(plasticity=CBP), gym.make("CartPole-v1")),
        (sac(plasticity=CBP), gym.make("Pendulum-v1")),
        (images, ContinuousImages()),
    ):
        model.learn(64 if env.spec else 36)
        before, activations = state_of(model), recorded(model)
        random = torch.get_rng_state()
        observations, _ = model.policy.obs_to_tensor(model.observation_space.sample()[None].repeat(300, 0))
        actions = torch.zeros(300, *model.action_space.shape)
        seen = model.policy.activations(observations, actions)
        assert torch.equal(random, torch.get_rng_state())
        evaluate_policy(model, Monitor(env), n_eval_episodes=1)
        model.predict(model.observation_space.sample())
        after = state_of(model)
        assert all(torch.equal(before[key], after[key]) for key in before)
        now = recorded(model)
        assert all(torch.equal(activations[n][k], now[n][k]) for n in now for k in now[n])
        first = next(iter(seen.values()))["0"]
        assert first.shape[0] == 300
