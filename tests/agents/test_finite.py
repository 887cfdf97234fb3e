"""Gradients that are not finite stop an agent before it steps; parameters that are not are found."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from stable_baselines3 import PPO as StockPPO

from agents import PPO, SAC
from agents.finite import GradientGuard, SquaresFinite, non_finite, optimizers
from plasticity import attach

SMALL: dict[str, Any] = {"policy_kwargs": {"net_arch": [8, 8]}, "seed": 0, "device": "cpu"}


def ppo(**kwargs: Any) -> PPO:
    return PPO("MlpPolicy", "Pendulum-v1", n_steps=64, batch_size=32, n_epochs=2, **SMALL | kwargs)


def sac(**kwargs: Any) -> SAC:
    return SAC("MlpPolicy", "Pendulum-v1", learning_starts=20, batch_size=8, buffer_size=1000, **SMALL | kwargs)


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.policy.state_dict().items() if torch.is_tensor(value)}


def spoil(parameter: torch.Tensor, value: float, at: int) -> None:
    """One entry of the gradient becomes `value` at the `at`-th backward pass."""
    seen = 0

    def change(gradient: torch.Tensor) -> torch.Tensor:
        nonlocal seen
        seen += 1
        if seen == at:
            gradient = gradient.clone()
            gradient.view(-1)[0] = value
        return gradient

    parameter.register_hook(change)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_ppo_stops_before_the_step(value: float) -> None:
    model = ppo(plasticity={"cbp": {"maturity": 0, "replacement_rate": 0.5}}, learning_rate=1e-3)
    model.learn(64)
    before = weights(model)
    guard = GradientGuard(model)
    spoil(model.policy.log_std, value, at=1)
    with pytest.raises(FloatingPointError) as caught:
        model.learn(64)
    text = str(caught.value)
    assert text.startswith("gradients of the policy are no longer finite at gradient step 1, before the step was taken")
    assert "that of log_std" in text
    assert guard.steps == {"policy": 0}
    for name, value_after in weights(model).items():
        torch.testing.assert_close(value_after, before[name], rtol=0, atol=0, msg=name)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_updates_by_hand_stop_before_the_step_too(value: float, monkeypatch: pytest.MonkeyPatch) -> None:
    model = ppo(plasticity="cbp", backend="auto")
    guard = GradientGuard(model)
    model.learn(64)
    assert guard.steps == {"policy": 4}
    looked: list[Any] = []
    monkeypatch.setattr(SquaresFinite, "__call__", lambda self, tensors: looked.append(1))
    before = weights(model)
    compute, rows = model.rollout_buffer.compute_returns_and_advantage, slice(5, 6)

    def spoilt(**kwargs: Any) -> None:
        compute(**kwargs)
        model.rollout_buffer.returns[rows] = value

    monkeypatch.setattr(model.rollout_buffer, "compute_returns_and_advantage", spoilt)
    with pytest.raises(
        FloatingPointError, match=r"^gradients of the policy are no longer finite at gradient step [56],"
    ):
        model.learn(64, reset_num_timesteps=False)
    assert not looked  # clipping has told
    assert guard.steps["policy"] in (4, 5)
    if guard.steps["policy"] == 4:
        for name, now in weights(model).items():
            torch.testing.assert_close(now, before[name], rtol=0, atol=0, msg=name)
    assert model.policy.optimizer.gradient_squares is None  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("owner", "parameter"),
    [("actor", "actor.mu.weight"), ("critic", "critic.qf1.0.bias"), ("entropy coefficient", "log_ent_coef")],
)
def test_each_optimizer_of_sac_is_looked_at(owner: str, parameter: str) -> None:
    model = sac()
    guard = GradientGuard(model)
    assert set(guard.steps) == {"actor", "critic", "entropy coefficient"}
    found = model.log_ent_coef if owner == "entropy coefficient" else model.policy.get_parameter(parameter)
    # the critics' parameters get a gradient from the actor's loss too, of which nobody makes a step
    spoil(found, math.nan, at=5)
    at = 3 if owner == "critic" else 5
    with pytest.raises(FloatingPointError) as caught:
        model.learn(100)
    assert str(caught.value) == (
        f"gradients of the {owner} are no longer finite at gradient step {at}, before the step was taken: "
        f"that of {parameter}"
    )
    assert non_finite(model) == []


def test_it_comes_before_the_methods_and_changes_nothing() -> None:
    plain = ppo(plasticity={"l2": {}, "cbp": {}}).learn(128)
    watched = ppo(plasticity={"l2": {}, "cbp": {}})
    guard = GradientGuard(watched)
    calls: list[str] = []
    optimizer = watched.policy.optimizer
    hooks = list(optimizer._optimizer_step_pre_hooks.values())
    assert len(hooks) > 1
    assert hooks[0].__module__ == GradientGuard.__module__
    assert all(hook.__module__ == attach.__module__ for hook in hooks[1:])
    optimizer.register_step_pre_hook(lambda *_: calls.append("step"))
    watched.learn(128)
    assert guard.steps == {"policy": len(calls)} == {"policy": 8}
    for name, value in weights(watched).items():
        torch.testing.assert_close(value, weights(plain)[name], rtol=0, atol=0, msg=name)


def test_large_finite_gradients_are_no_alarm() -> None:
    model = StockPPO("MlpPolicy", "Pendulum-v1", n_steps=64, **SMALL)
    guard = GradientGuard(model)
    for parameter in model.policy.parameters():
        parameter.grad = torch.full_like(parameter, 1e30)  # whose squares are not finite
    model.policy.optimizer.step()
    model.policy.optimizer.zero_grad()
    model.policy.optimizer.step()
    assert guard.steps == {"policy": 2}


def test_the_count_goes_on_in_another_agent() -> None:
    first, second = ppo(), ppo()
    guard, other = GradientGuard(first), GradientGuard(second)
    first.learn(64)
    other.load_state_dict(guard.state_dict())
    spoil(second.policy.log_std, math.nan, at=2)
    with pytest.raises(FloatingPointError, match="at gradient step 6, before"):
        second.learn(64)


def test_parameters_and_moments_that_are_not_finite_are_named() -> None:
    model = sac()
    model.learn(40)
    assert non_finite(model) == []
    assert list(optimizers(model)) == ["actor", "critic", "entropy coefficient"]
    with torch.no_grad():
        model.policy.get_parameter("critic_target.qf0.0.weight")[1, 2] = math.inf
        model.log_ent_coef.fill_(math.nan)
        bias = model.policy.get_parameter("actor.mu.bias")
        model.actor.optimizer.state[bias]["exp_avg_sq"].fill_(math.inf)
    assert non_finite(model) == [
        "critic_target.qf0.0.weight",
        "log_ent_coef",
        "exp_avg_sq of actor.mu.bias (optimizer of the actor)",
    ]


def test_a_step_of_an_absurd_learning_rate_is_found_afterwards() -> None:
    model = ppo(learning_rate=1e37)
    GradientGuard(model)
    for parameter in model.policy.parameters():
        parameter.grad = torch.ones_like(parameter)
    for _ in range(33):
        model.policy.optimizer.step()
    assert non_finite(model) == []
    model.policy.optimizer.step()
    model.policy.optimizer.step()  # 35e37, and the largest number is 34.03e37
    assert "log_std" in non_finite(model)
