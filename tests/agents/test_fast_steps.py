"""Gradient steps that nobody attends equal those with all their hooks, to the last bit."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from agents import PPO, GradientGuard, PlasticityMonitor, fast_steps
from plasticity import ContinualBackprop, Intervention, attach
from tests.agents.models import CBP, ppo

RELU = {"net_arch": [16, 12], "activation_fn": nn.ReLU}


@pytest.fixture
def taken(monkeypatch):
    """Of how many steps each call told."""
    counts: list[int] = []
    take = fast_steps.take_steps

    def counted(table: int, times: int) -> int:
        counts.append(take(table, times))
        return counts[-1]

    monkeypatch.setattr(fast_steps, "take_steps", counted)
    return counts


def attended(model: PPO) -> PPO:
    """The same, but for a hook that has to be called."""
    model.policy.optimizer.register_step_pre_hook(lambda *_: None)
    return model


def everything(model: PPO) -> dict[str, Any]:
    """All that a checkpoint holds of what is learned, and what was logged of the update."""
    policy = model.policy
    told = {key: value for key, value in model.logger.name_to_value.items() if key.startswith("train/")}
    states = {
        f"{name}/{key}": value for name, own in policy.plasticity.items() for key, value in own.state_dict().items()
    }
    moments = {
        f"{i}/{key}": value for i, own in enumerate(policy.optimizer.state.values()) for key, value in own.items()
    }
    return {**policy.state_dict(), **states, **moments, **told}


def equal(one: dict[str, Any], two: dict[str, Any]) -> bool:
    assert one.keys() == two.keys()
    for key, value in one.items():
        same = torch.equal(value, two[key]) if isinstance(value, torch.Tensor) else value == two[key]
        assert same, f"{key}: {value} and {two[key]}"
    return True


@pytest.mark.filterwarnings("ignore:You have specified a mini-batch size of 24")
@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(["CartPole-v1", "Pendulum-v1"]),
    st.sampled_from([nn.ReLU, nn.Tanh]),
    st.sampled_from([None, CBP, {"cbp": {"replacement_rate": 0.3, "maturity": 0}}, {"l2": {}, **CBP}]),
    st.sampled_from([32, 24]),
    st.sampled_from([1e9, 0.5, 1e-3]),
    st.sampled_from([None, 1e-4, 0.02]),
    st.booleans(),
    st.sampled_from([1, 2]),
)
def test_they_equal_attended_ones(env, activation, methods, batch_size, max_norm, target_kl, normalize, threads):
    before, found = torch.get_num_threads(), []
    torch.set_num_threads(threads)
    try:
        for prepare in (lambda model: model, attended):
            model = prepare(
                ppo(
                    env,
                    plasticity=copy.deepcopy(methods),
                    batch_size=batch_size,
                    n_epochs=3,
                    max_grad_norm=max_norm,
                    target_kl=target_kl,
                    normalize_advantage=normalize,
                    backend="auto",
                    policy_kwargs={"net_arch": [16, 12], "activation_fn": activation},
                )
            )
            guard = GradientGuard(model)
            model.learn(128)
            found.append({**everything(model), "steps": guard.steps["policy"]})
    finally:
        torch.set_num_threads(before)
    assert equal(*found)


@pytest.mark.parametrize("methods", [None, CBP])
def test_most_steps_are_unattended(taken, methods):
    model = ppo(plasticity=methods, backend="auto", n_epochs=5, policy_kwargs=RELU)
    GradientGuard(model)
    model.learn(128)
    assert sum(taken) >= 2 * 10 - 2 * 3  # all but the first ones of either update
    before = len(taken)
    attended(model).learn(64)
    assert len(taken) == before


def test_a_run_with_its_monitor_is_unattended_but_for_measured_steps(taken):
    model = ppo(plasticity=CBP, backend="auto", n_epochs=5, policy_kwargs=RELU)
    model.learn(192, callback=PlasticityMonitor(every=1, probe_size=32))
    assert sum(taken) >= 3 * 10 - 3 * 4
    assert "0/update_ratio" in model.policy.step_metrics["pi"].telemetry()


@pytest.mark.parametrize("row", [3, 40, 63])
def test_they_end_before_a_step_whose_gradients_are_not_finite(row):
    found = []
    for prepare in (lambda model: model, attended):
        model = prepare(ppo(plasticity=CBP, backend="auto", n_epochs=3, batch_size=8, policy_kwargs=RELU))
        guard = GradientGuard(model)
        model.learn(64)
        model.rollout_buffer.returns[row] = math.nan
        with pytest.raises(FloatingPointError, match="at gradient step") as error:
            model.train()
        found.append({**everything(model), "error": str(error.value), "steps": guard.steps["policy"]})
    assert equal(*found)


def test_without_a_guard_what_is_not_finite_goes_on_as_in_attended_steps():
    found = []
    for prepare in (lambda model: model, attended):
        model = prepare(ppo(backend="auto", batch_size=8, policy_kwargs=RELU))
        model.learn(64)
        model.rollout_buffer.returns[40] = math.nan
        model.train()
        found.append({key: value.nan_to_num() for key, value in model.policy.state_dict().items()})
    assert equal(*found)


class Counting(nn.Module, Intervention):
    """A method of somebody's own."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = 0

    def after_step(self, network):
        self.steps += 1


class Own(ContinualBackprop):
    """A kind of continual backprop that does more."""

    steps = 0

    def after_step(self, network):
        self.steps += 1
        super().after_step(network)


def test_methods_that_must_be_called_are(taken):
    model = ppo(backend="auto", n_epochs=5, policy_kwargs=RELU)
    counting = Counting()
    handle = attach(counting, model.policy.networks["pi"])
    own = Own(model.policy.networks["vf"].layers, maturity=3, replacement_rate=0.01)
    model.policy.plasticity["vf"].append(own)
    model.learn(64)
    assert counting.steps == own.steps == 10
    assert taken == []
    handle.remove()
    del model.policy.plasticity["vf"][0]
    model.learn(64)
    assert counting.steps == own.steps == 10
    assert sum(taken) > 5


def test_hooks_put_in_the_place_of_a_methods_are_called(taken, monkeypatch):
    model = ppo(backend="auto", n_epochs=5, plasticity=CBP, policy_kwargs=RELU)
    calls: list[str] = []
    (method,) = model.policy.plasticity["pi"]
    monkeypatch.setitem(vars(method), "before_step", lambda network: calls.append(network.name))
    model.learn(64)
    assert calls == ["pi"] * 10
    assert taken == []


def test_global_hooks_and_wrapped_steps_are_called(taken):
    model, calls = ppo(backend="auto", n_epochs=5, policy_kwargs=RELU), []
    handle = register_optimizer_step_post_hook(lambda *_: calls.append("step"))
    try:
        model.learn(64)
    finally:
        handle.remove()
    torch.optim.lr_scheduler.LambdaLR(model.policy.optimizer, lambda epoch: 1.0)  # counts steps
    model.learn(64)
    assert calls == ["step"] * 10
    assert taken == []
    assert model.policy.optimizer._opt_called
