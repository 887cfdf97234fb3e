"""PPO by hand against Stable-Baselines3's own, on the same data with the same draws."""

from __future__ import annotations

import copy
import math
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import nn
from torch.distributions import Categorical, Normal

from agents import PPO, GradientGuard, add_plasticity
from agents import fast_losses as losses
from agents.fast_mlp import MLPPass, PlainMLP
from agents.fast_ppo import FastPPO
from plasticity import METHODS, blas, native
from plasticity.native import NO_WORK, Work, together
from tests.agents.models import CBP, Images, ppo, replaced, weights
from tests.agents.test_recording import SpyConfig
from tests.plasticity.rows import ROWS


class Robot(gym.Env[Any, Any]):
    """As many numbers as an Ant's, drawn at random; rewards depend on actions."""

    observation_space = spaces.Box(-np.inf, np.inf, (27,), np.float64)
    action_space = spaces.Box(-1, 1, (8,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.np_random.normal(size=27), {}

    def step(self, action):
        noise = self.np_random.normal(size=27)
        return noise, float(action.sum() + noise[0]), bool(self.np_random.random() < 0.02), False, {}


PUBLISHED = {
    "n_steps": 256,
    "batch_size": 128,
    "n_epochs": 2,
    "learning_rate": 1e-4,
    "vf_coef": 1.0,
    "policy_kwargs": {"net_arch": [256, 256], "activation_fn": nn.ReLU, "init": "lecun"},
}


def both(make, steps, **kwargs):
    """Two agents after the same steps: SB3's way and by hand, each with what it logged."""
    found = []
    for backend in ("stock", "auto"):
        model = make(backend=backend, **copy.deepcopy(kwargs))
        assert (model.why_stock() is None) == (backend == "auto"), model.why_stock()
        model.set_logger(Logger(None, []))
        model.learn(steps)
        found.append(model)
    return found


def logged(model):
    return {k: v for k, v in model.logger.name_to_value.items() if k.startswith("train/")}


def apart(one, two):
    return float((weights(one) - weights(two)).abs().max())


@pytest.mark.parametrize("plasticity", [None, "cbp", {"cbp": {"replacement_rate": 1e-2, "maturity": 4}}])
def test_at_the_published_settings_after_32_minibatches(plasticity):
    stock, fast = both(
        lambda **kw: PPO("MlpPolicy", DummyVecEnv([Robot] * 8), seed=0, device="cpu", **kw),
        2048,
        plasticity=plasticity,
        **PUBLISHED,
    )
    assert fast.policy.optimizer.state[fast.policy.action_net.bias]["step"] == 32
    assert apart(stock, fast) <= 1e-6
    assert replaced(stock) == replaced(fast)
    if isinstance(plasticity, dict):
        assert all(count > 100 for count in replaced(fast).values())
        for name in ("pi", "vf"):
            ages = [model.policy.plasticity[name][0].layers["0"].age for model in (stock, fast)]
            assert torch.equal(*ages)


@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1"])
@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"policy_kwargs": {"activation_fn": nn.ReLU, "net_arch": {"pi": [16], "vf": [24, 8, 8]}}},
        {"ent_coef": 0.05, "clip_range_vf": 0.1, "clip_range": 0.01},
        {"normalize_advantage": False, "max_grad_norm": 0.01},
        {"batch_size": 30},  # the last minibatch of an epoch is smaller
        {"target_kl": 1e-5, "n_epochs": 5, "learning_rate": 1e-2},
        {"learning_rate": lambda left: 1e-4 * left, "policy_kwargs": {"optimizer_class": torch.optim.RMSprop}},
    ],
    ids=["default", "networks", "clipping", "norms", "uneven", "target_kl", "rmsprop"],
)
@pytest.mark.filterwarnings("ignore:You have specified a mini-batch size")
def test_all_settings_give_the_same_weights_and_the_same_log(env, kwargs):
    stock, fast = both(lambda **kw: ppo(env, **kw), 128, **kwargs)
    assert apart(stock, fast) <= 1e-6
    assert logged(stock).keys() == logged(fast).keys()
    for name, value in logged(stock).items():
        assert logged(fast)[name] == pytest.approx(float(value), rel=1e-4, abs=1e-6), name
    assert stock._n_updates == fast._n_updates
    start = weights(ppo(env, **copy.deepcopy(kwargs)))
    assert float((start - weights(fast)).abs().max()) > 1e-4


@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1"])
def test_in_double_precision_to_the_tenth_decimal_at_a_large_learning_rate(env):
    def make(**kwargs):
        model = ppo(env, learning_rate=0.05, ent_coef=0.01, **kwargs)
        model.policy.double()
        model.policy.features_extractor.register_forward_hook(lambda module, args, output: output.double())
        model.rollout_buffer.to_torch = lambda array, copy=True: torch.tensor(array).double()
        return model

    stock, fast = both(make, 64)
    assert fast.policy.action_net.weight.dtype == torch.float64
    assert apart(stock, fast) <= 1e-10


@pytest.mark.parametrize("method", [m for m in METHODS if m not in ("crelu", "fourier", "layer_norm", "nap")])
def test_no_method_knows_which_update_runs(method):
    if method == "plasticity_injection":
        assert "something else watches or changes" in ppo(backend="auto", plasticity=method).why_stock()
        return
    kwargs = {"n_steps": 32, "batch_size": 16, "policy_kwargs": {"net_arch": [16, 16]}}
    stock, fast = both(lambda **kw: ppo("Pendulum-v1", **kw), 64, plasticity={method: ROWS[method].active}, **kwargs)
    assert apart(stock, fast) <= 2e-6
    for name, one in stock.policy.plasticity.items():
        assert one.telemetry() == pytest.approx(fast.policy.plasticity[name].telemetry(), rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1"])
@pytest.mark.parametrize("deterministic", [False, True])
def test_in_a_rollout_it_acts_bit_for_bit_as_stock_does(env, deterministic):
    model = ppo(env, backend="auto")
    observations = torch.from_numpy(np.random.default_rng(0).normal(size=(5, *model.observation_space.shape)))
    fast, found = model._backend.of(model), []
    for policy_fast in (None, fast):
        model.policy.fast = policy_fast
        torch.manual_seed(3)
        with torch.no_grad():
            found.append([*model.policy(observations, deterministic), torch.rand(3)])
    assert all(torch.equal(one, other) and one.dtype == other.dtype for one, other in zip(*found, strict=True))
    model.policy.fast = fast
    assert model.policy(observations)[1].requires_grad  # with gradients, SB3's own


def test_the_first_rollout_is_stocks_to_the_last_bit():
    buffers = [model.rollout_buffer for model in both(lambda **kw: ppo("Pendulum-v1", **kw), 64)]
    by_hand = buffers[1]
    for name in ("observations", "actions", "values", "log_probs", "advantages", "returns"):
        mine = getattr(by_hand, name)
        theirs = getattr(buffers[0], name)
        assert np.array_equal(theirs, by_hand.swap_and_flatten(mine)), name


def test_methods_see_the_minibatch_that_the_gradient_came_from():
    stock, fast = both(ppo, 64, plasticity=SpyConfig())
    for name in ("pi", "vf"):
        one, two = (model.policy.plasticity[name][0].seen for model in (stock, fast))
        assert len(one) == len(two) == 4
        for before, after in zip(one, two, strict=True):
            assert all(torch.allclose(before[key], after[key], atol=1e-6) for key in before)


@pytest.mark.parametrize("head", ["action_net", "value_net"])
def test_a_gradient_guard_stops_it_before_the_step(head):
    model = ppo("Pendulum-v1", backend="auto")
    GradientGuard(model)
    model.learn(64)
    with torch.no_grad():
        getattr(model.policy, head).bias[0] = math.nan
    before = weights(model)
    with pytest.raises(FloatingPointError, match="gradients of the policy are no longer finite"):
        model.train()
    assert torch.equal(weights(model).nan_to_num(), before.nan_to_num())


def test_a_saved_agent_goes_on_by_hand(tmp_path):
    model = ppo(backend="auto", plasticity=CBP).learn(64)
    model.save(tmp_path / "agent")
    again = PPO.load(tmp_path / "agent", env=gym.make("CartPole-v1"))
    assert again.backend == "auto"
    assert again.why_stock() is None
    again.learn(64)
    assert again.policy.optimizer.fused


def frozen(model):
    model.policy.value_net.bias.requires_grad_(False)


def watched(model):
    model.policy.log_std.register_hook(lambda gradient: gradient)


def hooked(model):
    model.policy.action_net.register_forward_hook(lambda *_: None)


@pytest.mark.parametrize(
    ("make", "change", "reason"),
    [
        (lambda: ppo(Images(), policy="CnnPolicy", backend="auto"), None, "the policy is PlasticActorCriticCnnPolicy"),
        (lambda: ppo("Pendulum-v1", use_sde=True, backend="auto"), None, "gSDE is used"),
        (lambda: ppo(plasticity="layer_norm", backend="auto"), None, "other layers than Linear and activation"),
        (lambda: ppo(plasticity="crelu", backend="auto"), None, "activation CReLU, not ReLU or Tanh"),
        (lambda: ppo(policy_kwargs={"net_arch": []}, backend="auto"), None, "not two networks with hidden layers"),
        (lambda: ppo(policy_kwargs={"activation_fn": nn.ELU}, backend="auto"), None, "activation ELU"),
        (lambda: ppo("Pendulum-v1", backend="auto"), frozen, "frozen"),
        (lambda: ppo("Pendulum-v1", backend="auto"), watched, "log_std is frozen, or something else watches"),
        (lambda: ppo("Pendulum-v1", backend="auto"), hooked, "something else watches or changes what network pi"),
        (lambda: ppo(backend="stock"), None, "backend=stock was asked for"),
        (lambda: add_plasticity(ppo_of_stock()), None, "backend=stock was asked for"),
    ],
    ids=["cnn", "sde", "norm", "crelu", "linear", "elu", "frozen", "watched", "hooked", "stock", "added"],
)
def test_where_it_does_not_apply_stock_runs_and_the_log_says_why_once(make, change, reason, capsys):
    model = make()
    if change is not None:
        change(model)
    assert reason in model.why_stock()
    model.verbose = 1
    model.learn(64)
    model.learn(64)
    told = capsys.readouterr().out.count("Stable-Baselines3's own update is used")
    assert told == (0 if model.backend == "stock" else 1)


def ppo_of_stock():
    import stable_baselines3

    return stable_baselines3.PPO("MlpPolicy", "CartPole-v1", n_steps=64, batch_size=32, n_epochs=2, device="cpu")


def test_an_unknown_backend_is_named():
    with pytest.raises(ValueError, match='unknown backend "autp": allowed are auto, stock; did you mean "auto"'):
        ppo(backend="autp")


def drawn(seed, rows, size):
    random = torch.Generator().manual_seed(seed)
    return random, torch.randn(rows, size, generator=random, dtype=torch.float64)


def done(task):
    together(NO_WORK, Work(task))


def surrogate(log_prob, old, advantages, clip):
    ratio = torch.exp(log_prob - old)
    return -torch.min(advantages * ratio, advantages * torch.clamp(ratio, 1 - clip, 1 + clip)).mean(), ratio


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 9),
    st.integers(1, 4),
    st.sampled_from([0.01, 0.2, 5.0]),
    st.sampled_from([0.0, 0.1]),
)
def test_the_losses_gradients_are_autograds(seed, rows, size, clip, entropy):
    random, head = drawn(seed, rows, size)
    advantages = torch.randn(rows, generator=random, dtype=torch.float64).round(decimals=1)  # zeros among them
    log_std = torch.randn(size, generator=random, dtype=torch.float64, requires_grad=True)
    actions = torch.randn(rows, size, generator=random, dtype=torch.float64)
    head.requires_grad_()
    policy = Normal(head, log_std.exp())
    log_prob = policy.log_prob(actions).sum(1)
    old = log_prob.detach() + 0.3 * torch.randn(rows, generator=random, dtype=torch.float64)
    old[0] = log_prob[0].item()  # a ratio of exactly 1
    loss, ratio = surrogate(log_prob, old, advantages, clip)
    (loss - entropy * policy.entropy().sum(1).mean()).backward()
    to_log_std, to_head = torch.empty(size, dtype=torch.float64), torch.empty_like(head)
    policy_loss = losses.PolicyLoss(head.detach(), to_head, log_std.detach(), to_log_std)
    policy_loss.settings(clip, entropy)
    policy_loss.prepare(actions, old, advantages, normalize=False)
    done(policy_loss.task)
    numbers = policy_loss.numbers
    torch.testing.assert_close(to_head, head.grad, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(to_log_std, log_std.grad, rtol=1e-9, atol=1e-12)
    kl = ((ratio - 1) - (log_prob - old)).mean().item()
    clipped = ((ratio - 1).abs() > clip).double().mean().item()
    expected = [loss.item(), clipped, kl, -policy.entropy().sum(1).mean().item()]
    np.testing.assert_allclose(numbers, expected, rtol=1e-9, atol=1e-12)

    logits = head.detach().clone().requires_grad_()
    choice = torch.randint(size, (rows,), generator=random)
    policy = Categorical(logits=logits)
    log_prob = policy.log_prob(choice)
    old = log_prob.detach() + 0.3 * torch.randn(rows, generator=random, dtype=torch.float64)
    loss, ratio = surrogate(log_prob, old, advantages, clip)
    (loss - entropy * policy.entropy().mean()).backward()
    policy_loss = losses.PolicyLoss(logits.detach(), to_head, None, None)
    policy_loss.settings(clip, entropy)
    policy_loss.prepare(choice[:, None], old, advantages, normalize=False)
    done(policy_loss.task)
    torch.testing.assert_close(to_head, logits.grad, rtol=1e-9, atol=1e-12)
    assert policy_loss.numbers.entropy == pytest.approx(-policy.entropy().mean().item())


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.sampled_from([math.inf, 0.0, 0.3]))
def test_the_value_losss_gradient_is_autograds(seed, rows, clip):
    random, values = drawn(seed, rows, 1)
    old, returns = (torch.randn(rows, generator=random, dtype=torch.float64) for _ in range(2))
    values.requires_grad_()
    moved = values[:, 0] - old
    predicted = values[:, 0] if clip == math.inf else old + torch.clamp(moved, -clip, clip)
    loss = nn.functional.mse_loss(returns, predicted)
    (0.7 * loss).backward()
    into = torch.empty_like(values)
    value_loss = losses.ValueLoss(values.detach(), into)
    value_loss.settings(clip, 0.7)
    value_loss.prepare(old, returns)
    done(value_loss.task)
    assert value_loss.loss == pytest.approx(loss.item())
    torch.testing.assert_close(into, values.grad, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh])
@pytest.mark.parametrize("rows", [1, 7, 128])
def test_a_pass_is_the_modules_own_and_its_sums_are_those_of_what_it_put_out(rows, activation, kind):
    model = ppo("Pendulum-v1", policy_kwargs={"activation_fn": activation, "net_arch": [9, 30]})
    model.policy.to(kind)
    network, own = model.policy.networks["pi"], model.policy.mlp_extractor.policy_net
    network.wants_sums = True
    inputs = (3 * torch.randn(rows, 3)).to(kind)
    inputs[0, 0] = 40.0  # far into saturation
    head = model.policy.action_net(own(inputs))
    to_head = torch.randn_like(head)
    (head * to_head).sum().backward()
    expected = [p.grad for p in [*own.parameters(), *model.policy.action_net.parameters()]]
    mlp = PlainMLP(network.layers, [model.policy.action_net])
    one = MLPPass(mlp, rows)
    one.keep_what_is_recorded(network)
    torch.testing.assert_close(one(inputs)[0], head.detach())
    one.to_outputs[0].copy_(to_head)
    one.native.backward(one.table.ctypes.data)
    one.tell(network)
    for found, by_autograd in zip(mlp.gradients, expected, strict=True):
        torch.testing.assert_close(found, by_autograd)
    for layer in network.layers:
        h = network.activations[layer.name]
        torch.testing.assert_close(network.latest_sums[layer.name], torch.stack([h.sum(0), h.abs().sum(0)]))
    own(inputs)  # hooks record anew, and what is known of the pass before is no longer told
    assert network.latest_sums is None


@pytest.mark.parametrize("layout", ["by column", "first row again", "every other column"])
def test_observations_are_read_however_they_lie_in_memory(layout):
    model = ppo("Pendulum-v1", policy_kwargs={"activation_fn": nn.ReLU})
    rows = {
        "by column": torch.randn(3, 4).t(),
        "first row again": torch.randn(1, 3).expand(4, 3),
        "every other column": torch.randn(4, 6)[:, ::2],
    }[layout]
    fast = FastPPO(model.policy)
    with torch.no_grad():
        found = fast.act(rows, deterministic=True)
        expected = model.policy.forward(rows.contiguous(), deterministic=True)
    assert all(torch.equal(a, b.reshape(a.shape)) for a, b in zip(found, expected, strict=True))


def test_both_threads_and_one_give_the_same_bits():
    found = []
    threads = torch.get_num_threads()
    for count in (1, 2):
        torch.set_num_threads(count)
        try:
            model = PPO("MlpPolicy", DummyVecEnv([Robot] * 8), seed=0, backend="auto", plasticity=CBP, **PUBLISHED)
            model.set_logger(Logger(None, []))
            model.learn(2048)
        finally:
            torch.set_num_threads(threads)
        found.append(weights(model))
    assert torch.equal(*found)


@pytest.mark.parametrize("find", [blas.of_numpy, blas.of_scipy])
def test_the_update_is_the_same_whosever_products_are_used(find):
    other = find()
    if other is None:
        pytest.skip("this NumPy brings no OpenBLAS of its own")
    native.use(other)
    try:
        test_at_the_published_settings_after_32_minibatches("cbp")
    finally:
        native.use(getattr(blas, f"of_{native.BLAS}")())
