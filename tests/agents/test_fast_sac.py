"""SAC by hand against Stable-Baselines3's own, on the same data with the same draws."""

from __future__ import annotations

import copy
import math

import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.buffers import NStepReplayBuffer, ReplayBuffer
from stable_baselines3.common.distributions import SquashedDiagGaussianDistribution
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.utils import polyak_update
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from torch import nn

from agents import SAC, GradientGuard
from agents.fast_mlp import MLPPass, PlainMLP
from agents.fast_sac_losses import CriticsLoss, Polyak, Squashed
from agents.replay import Transitions, fit
from plasticity import METHODS
from plasticity.native import NO_WORK, Work, table, together
from tests.agents.models import CBP, ContinuousImages, replaced, sac, weights
from tests.agents.test_fast_ppo import Robot, apart, both, logged
from tests.agents.test_recording import SpyConfig
from tests.plasticity.rows import ROWS

PUBLISHED = {"batch_size": 256, "learning_starts": 299, "train_freq": 300, "gradient_steps": 32, "buffer_size": 1000}
ACTING = {"cbp": {"replacement_rate": 1e-2, "maturity": 4}}


def temperature(model):
    return 0.0 if model.log_ent_coef is None else model.log_ent_coef.item()


def differ(one, two):
    return max(apart(one, two), abs(temperature(one) - temperature(two)))


@pytest.mark.parametrize("plasticity", [None, ACTING])
def test_at_the_published_settings_after_32_gradient_steps(plasticity):
    def make(**kwargs):
        return SAC("MlpPolicy", Robot(), seed=0, device="cpu", policy_kwargs={"net_arch": [256, 256]}, **kwargs)

    stock, fast = both(make, 300, plasticity=plasticity, **PUBLISHED)
    assert fast.actor.optimizer.state[fast.actor.mu.bias]["step"] == stock._n_updates == 32
    assert differ(stock, fast) <= 1e-6
    assert float((weights(fast) - weights(make())).abs().max()) > 1e-3
    assert replaced(stock) == replaced(fast)
    if plasticity is not None:
        assert all(count > 100 for count in replaced(fast).values())
        for name in ("actor", "qf0", "qf1"):
            ages = [model.policy.plasticity[name][0].layers["0"].age for model in (stock, fast)]
            assert torch.equal(*ages)


def normalised():
    return VecNormalize(DummyVecEnv([lambda: gym.make("Pendulum-v1")]), gamma=0.9)


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"policy_kwargs": {"activation_fn": nn.Tanh, "n_critics": 3, "net_arch": {"pi": [12, 8], "qf": [9]}}},
        {"policy_kwargs": {"n_critics": 1, "share_features_extractor": True}},
        {"ent_coef": 0.2, "target_update_interval": 3, "tau": 0.1, "gradient_steps": 4, "train_freq": 4},
        {"ent_coef": "auto_0.1", "target_entropy": -3.0, "gamma": 0.8},
        {"n_steps": 3},
        {"env": normalised},
        {"env": lambda: DummyVecEnv([Robot] * 3), "batch_size": 7},
        {"learning_rate": lambda left: 1e-3 * left, "policy_kwargs": {"optimizer_class": torch.optim.RMSprop}},
        {"plasticity": CBP, "policy_kwargs": {"target_critic": "sync"}},
    ],
    ids=["default", "networks", "one", "fixed", "entropy", "n_steps", "norm", "envs", "rmsprop", "sync"],
)
def test_all_settings_give_the_same_weights_and_the_same_log(kwargs):
    def make(env=lambda: "Pendulum-v1", **kw):
        return sac(env(), **kw)

    stock, fast = both(make, 60, **kwargs)
    assert differ(stock, fast) <= 1e-6
    assert logged(stock).keys() == logged(fast).keys()
    for name, value in logged(stock).items():
        assert logged(fast)[name] == pytest.approx(float(value), rel=1e-4, abs=1e-6), name
    assert stock._n_updates == fast._n_updates > 9
    assert isinstance(fast.replay_buffer, NStepReplayBuffer) == ("n_steps" in kwargs)
    assert float((weights(make(**copy.deepcopy(kwargs))) - weights(fast)).abs().max()) > 1e-4


def in_double_precision(**kwargs):
    once = {"learning_starts": 99, "train_freq": 100, "gradient_steps": 32}  # so that all data are the same
    model = sac(learning_rate=0.02, policy_kwargs={"n_critics": 3}, **once, **kwargs)
    model.policy.double()
    for part in (model.actor, model.critic, model.critic_target):
        part.features_extractor.register_forward_hook(lambda module, args, output: output.double())
    model.replay_buffer.to_torch = lambda array, copy=True: torch.tensor(array).double()
    model.log_ent_coef = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    model.ent_coef_optimizer = torch.optim.Adam([model.log_ent_coef], lr=0.02)
    return model


def test_in_double_precision_to_the_tenth_decimal_at_a_large_learning_rate():
    stock, fast = both(in_double_precision, 100)
    assert fast.actor.mu.weight.dtype == torch.float64
    assert differ(stock, fast) <= 1e-10
    assert abs(temperature(fast)) > 0.1


@pytest.mark.parametrize("method", [m for m in METHODS if m not in ("crelu", "fourier", "layer_norm", "nap")])
def test_no_method_knows_which_update_runs(method):
    if method == "plasticity_injection":
        assert "something else watches or changes" in sac(backend="auto", plasticity=method).why_stock()
        return
    kwargs = {"policy_kwargs": {"net_arch": [16, 16], "activation_fn": nn.Tanh, "target_critic": "sync"}}
    stock, fast = both(sac, 38, plasticity={method: ROWS[method].active}, **kwargs)
    assert differ(stock, fast) <= 2e-6
    for name, one in stock.policy.plasticity.items():
        assert one.telemetry() == pytest.approx(fast.policy.plasticity[name].telemetry(), rel=1e-3, abs=1e-5)


def test_methods_see_the_pass_that_the_gradient_came_from():
    stock, fast = both(sac, 39, plasticity=SpyConfig())
    for name in ("actor", "qf0", "qf1"):
        one, two = (model.policy.plasticity[name][0].seen for model in (stock, fast))
        assert len(one) == len(two) == 9
        for before, after in zip(one, two, strict=True):
            assert all(torch.allclose(before[key], after[key], atol=1e-6) for key in before)


@pytest.mark.parametrize("deterministic", [False, True])
def test_in_a_rollout_it_acts_bit_for_bit_as_stock_does(deterministic):
    model = sac(Robot(), backend="auto")
    with torch.no_grad():
        model.actor.log_std.bias[:2] = torch.tensor([-30.0, 30.0])  # beyond both ends of the range
    observations = np.random.default_rng(0).normal(size=(5, 27))
    fast, found = model._backend.of(model), []
    for policy_fast in (None, fast):
        model.policy.fast = policy_fast
        torch.manual_seed(3)
        acted = [model.predict(seen, deterministic=deterministic)[0] for seen in (observations, observations[0])]
        found.append([*acted, torch.rand(3).numpy()])
    assert [len(acted) for acted in found[0][:2]] == [5, 8]
    assert all(np.array_equal(one, other) and one.dtype == other.dtype for one, other in zip(*found, strict=True))
    model.policy.fast = fast
    read_only = observations[::-1]  # and the other way round, which torch knows nothing of
    read_only.flags.writeable = False
    assert model.predict(read_only)[0].shape == (5, 8)
    assert model.policy(torch.from_numpy(observations)).requires_grad  # with gradients, SB3's own


def test_what_is_collected_is_stocks_to_the_last_bit():
    buffers = [model.replay_buffer for model in both(sac, 60, learning_starts=10, train_freq=80)]
    for name in ("observations", "next_observations", "actions", "rewards"):
        assert np.array_equal(*(getattr(buffer, name) for buffer in buffers)), name


def test_modes_are_those_of_stock():
    for model in both(sac, 40):
        modes = model.policy.training, model.actor.latent_pi[0].training, model.critic_target.training
        assert modes == (True, True, False)
        model.collect_rollouts(*collecting(model))
        assert not any(module.training for part in (model.actor, model.critic) for module in part.modules())
        assert not model.policy.training


def collecting(model):
    _, callback = model._setup_learn(10, reset_num_timesteps=False)
    return model.env, callback, model.train_freq, model.replay_buffer


@pytest.mark.parametrize("head", [lambda m: m.actor.mu, lambda m: m.critic.qf1[-1]], ids=["actor", "critic"])
def test_a_gradient_guard_stops_it_before_the_step(head):
    model = sac(backend="auto")
    GradientGuard(model)
    model.learn(40)
    with torch.no_grad():
        head(model).bias[0] = math.nan
    before = weights(model)
    with pytest.raises(FloatingPointError, match="are no longer finite"):
        model.train(1, 32)
    assert torch.equal(weights(model).nan_to_num(), before.nan_to_num())


def test_a_saved_agent_goes_on_by_hand_and_bit_for_bit(tmp_path):
    model = sac(backend="auto", plasticity=CBP).learn(40)
    model.save(tmp_path / "agent")
    again = SAC.load(tmp_path / "agent", env=gym.make("Pendulum-v1"))
    again.replay_buffer = model.replay_buffer
    for agent in (model, again):
        assert agent.why_stock() is None
        np.random.seed(5)  # noqa: NPY002  # SB3's stream
        torch.manual_seed(5)
        agent.set_logger(model.logger)
        agent.train(6, 32)
    assert again.actor.optimizer.fused
    assert torch.equal(weights(model), weights(again))
    assert temperature(model) == temperature(again)


def frozen(model):
    model.critic.qf0[0].bias.requires_grad_(False)


def watched(model):
    model.log_ent_coef.register_hook(lambda gradient: gradient)


def hooked(model):
    model.actor.mu.register_forward_hook(lambda *_: None)


def hooked_target(model):
    model.critic_target.qf1[0].register_forward_hook(lambda *_: None)


class Extractor(FlattenExtractor):
    """Flattens in its own way."""

    def plastic_modules(self):
        return []


@pytest.mark.parametrize(
    ("make", "change", "reason"),
    [
        (
            lambda: sac(ContinuousImages(), policy="CnnPolicy", backend="auto"),
            None,
            "the policy is PlasticSACCnnPolicy, not",
        ),
        (lambda: sac(use_sde=True, backend="auto"), None, "gSDE is used"),
        (
            lambda: sac(policy_kwargs={"features_extractor_class": Extractor}, backend="auto"),
            None,
            "observations go through Extractor",
        ),
        (lambda: sac(plasticity="layer_norm", backend="auto"), None, "other layers than Linear and activation"),
        (lambda: sac(plasticity="crelu", backend="auto"), None, "activation CReLU, not ReLU or Tanh"),
        (
            lambda: sac(policy_kwargs={"net_arch": {"pi": [8], "qf": []}}, backend="auto"),
            None,
            "actor and critics are not networks with hidden layers each",
        ),
        (lambda: sac(policy_kwargs={"activation_fn": nn.ELU}, backend="auto"), None, "activation ELU"),
        (lambda: sac(backend="auto"), frozen, "frozen"),
        (lambda: sac(backend="auto"), watched, "log_ent_coef is frozen, or something else watches"),
        (lambda: sac(backend="auto"), hooked, "something else watches or changes what network actor computes"),
        (lambda: sac(backend="auto"), hooked_target, "what the target of network qf1 computes"),
        (lambda: sac(backend="stock"), None, "backend=stock was asked for"),
    ],
    ids=["cnn", "sde", "extractor", "norm", "crelu", "linear", "elu", "frozen", "watched", "hooked", "target", "stock"],
)
def test_where_it_does_not_apply_stock_runs_and_the_log_says_why_once(make, change, reason, capsys):
    model = make()
    if change is not None:
        change(model)
    assert reason in model.why_stock()
    model.verbose = 1
    model.learn(33)
    model.learn(33)
    told = capsys.readouterr().out.count("Stable-Baselines3's own update is used")
    assert told == (0 if model.backend == "stock" else 1)


def replaced_layer(model):
    model.critic.qf0[2] = copy.deepcopy(model.critic.qf0[2])


def moved(model):
    weight = model.critic_target.qf0[0].weight
    weight.data = weight.data.clone()


@pytest.mark.parametrize("change", [frozen, watched, hooked, hooked_target, replaced_layer, moved])
def test_what_changes_while_it_learns_is_noticed(change):
    model = sac(backend="auto").learn(33)
    before = model._backend.of(model)
    assert before is model._backend.of(model)
    change(model)
    assert not model._backend._unchanged(model)
    now = model._backend.of(model)
    assert (now is None) == (change is not moved)
    model.learn(33, reset_num_timesteps=False)


def picked(loss):
    return [rows[:count] for rows, count in zip(loss.chosen, loss.counts.tolist(), strict=True)]


def stock_loss(mean, log_std, noise, q, alpha):
    """SB3's own arithmetic from the heads on; q: from actions to the critics' values."""
    torch.manual_seed(noise)
    distribution = SquashedDiagGaussianDistribution(mean.shape[1])
    actions, log_prob = distribution.log_prob_from_params(mean, log_std.clamp(-20, 2))
    actions.retain_grad()
    least, _ = torch.min(torch.cat(q(actions), dim=1), dim=1, keepdim=True)
    return actions, log_prob, (alpha * log_prob.reshape(-1, 1) - least).mean()


def act(squashed, mean, log_std):
    """Draw, and work the actions out, the first half and the second by tasks of their own."""
    squashed.draw()
    parts = [part for part in (slice(0, len(mean) // 2), slice(len(mean) // 2, None)) if len(mean[part])]
    tasks = [squashed.task((mean[part], log_std[part]), part.start) for part in parts]
    together(NO_WORK, Work(*tasks))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 70), st.integers(1, 40), st.sampled_from([0.3, 3.0, 30.0]))
def test_actions_in_single_precision_are_right_to_a_few_units_in_the_last_place(seed, rows, size, scale):
    random = torch.Generator().manual_seed(seed)
    mean, log_std = (scale * torch.randn(rows, size, generator=random) for _ in range(2))
    squashed = Squashed(rows, size, 1e-6, mean)
    act(squashed, mean, log_std)
    exact = {"rtol": 4e-7, "atol": 0.0}
    std = log_std.double().clamp(-20, 2).exp()
    torch.testing.assert_close(squashed.std.double(), std, **exact)
    z = mean + squashed.noise * squashed.std  # as rounded
    near_zero = {"rtol": 4e-7, "atol": float(1e-7 * mean.abs().max())}  # where mean and noise cancel each other
    torch.testing.assert_close(squashed.actions.double(), z.double().tanh(), **near_zero)
    stock = SquashedDiagGaussianDistribution(size)
    torch.manual_seed(0)
    stock.proba_distribution(mean, log_std.clamp(-20, 2))
    log_prob = stock.log_prob(squashed.actions, squashed._z)
    torch.testing.assert_close(squashed.log_prob, log_prob, rtol=1e-5, atol=1e-5 * size)


def test_what_is_no_number_stays_that():
    mean, log_std = torch.zeros(3, 2), torch.zeros(3, 2)
    mean[0, 0] = log_std[1, 0] = torch.nan
    mean[2, 0], log_std[2, 1] = torch.inf, -torch.inf
    squashed = Squashed(3, 2, 1e-6, mean)
    act(squashed, mean, log_std)
    assert squashed.actions.isnan().tolist() == [[True, False], [True, False], [False, False]]
    assert squashed.log_prob.isnan().tolist() == [True, True, True]  # infinity less itself
    assert squashed.actions[2, 0] == 1
    assert squashed.std[2, 1].item() == pytest.approx(math.exp(-20))


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 9),
    st.integers(1, 40),
    st.integers(1, 3),
    st.sampled_from([0.0, 0.3, 2.0]),
    st.sampled_from([0.5, 6.0]),
)
def test_the_actors_loss_and_its_gradients_are_autograds(seed, rows, size, critics, alpha, scale):
    random = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    mean = (scale * draw(rows, size)).requires_grad_()  # saturated among them
    log_std = (0.5 * draw(rows, size) - 1).requires_grad_()
    with torch.no_grad():
        log_std[0, 0] = 2.0  # just within
        log_std[-1, -1] = 5.0
        if scale > 1:
            log_std[0, -1] = -25.0  # where autograd's own terms are so large that they hide what is left of them
    slopes = draw(critics, size)
    slopes[-1] = slopes[0]  # ties
    actions, log_prob, loss = stock_loss(mean, log_std, seed, lambda a: [a @ s[:, None] for s in slopes], alpha)
    loss.backward()

    squashed = Squashed(rows, size, 1e-6, mean.detach())
    torch.manual_seed(seed)
    act(squashed, mean.detach(), log_std.detach())
    torch.testing.assert_close(squashed.actions, actions, rtol=1e-12, atol=1e-12)
    near = {"rtol": 1e-9, "atol": 1e-6 if scale > 1 else 1e-12}
    torch.testing.assert_close(squashed.log_prob, log_prob, **near)
    values = [actions.detach() @ s[:, None] for s in slopes]
    least = CriticsLoss(values, values, [torch.empty_like(value) for value in values])
    assert least.actor(squashed.log_prob, alpha) == pytest.approx(loss.item(), rel=1e-12, abs=near["atol"])
    to_actions = torch.zeros(rows, size, dtype=torch.float64)
    chosen = picked(least)
    assert torch.cat(chosen).sort().values.tolist() == [*range(rows)]
    for own, slope in zip(chosen, slopes, strict=True):
        to_actions[own] = -slope / rows
    to_mean, to_log_std = torch.empty_like(to_actions), torch.empty_like(to_actions)
    squashed.slopes(log_std.detach(), to_actions, alpha / rows, [to_mean, to_log_std])
    torch.testing.assert_close(to_mean, mean.grad, **near)
    torch.testing.assert_close(to_log_std, log_std.grad, **near)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 3), st.booleans())
def test_the_critics_loss_and_its_gradients_are_autograds(seed, rows, critics, each):
    random = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    targets = [draw(rows, 1).round() for _ in range(critics)]  # ties among them
    values = [draw(rows, 1).requires_grad_() for _ in range(critics)]
    rewards, log_prob, dones = draw(rows, 1), draw(rows), (draw(rows, 1) > 0).double()
    discounts = draw(rows, 1) if each else 0.97
    least, _ = torch.min(torch.cat(targets, dim=1), dim=1, keepdim=True)
    goal = rewards + (1 - dones) * discounts * (least - 0.3 * log_prob.reshape(-1, 1))
    loss = 0.5 * sum(nn.functional.mse_loss(value, goal) for value in values)
    loss.backward()
    by_hand = CriticsLoss(targets, [value.detach() for value in values], [torch.empty_like(value) for value in values])
    assert by_hand.critics(rewards, dones, discounts, log_prob, 0.3) == pytest.approx(loss.item())
    for slope, value in zip(by_hand.slopes, values, strict=True):
        torch.testing.assert_close(slope, value.grad, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("values", [[1.0, 1.0, 2.0], [3.0, 1.0, 1.0], [2.0, math.nan, 1.0], [math.nan, 0.0, math.nan]])
def test_of_equal_values_and_of_nan_the_same_one_is_taken_as_torch_does(values):
    columns = [torch.tensor([[value]]) for value in values]
    loss = CriticsLoss(columns, columns, [torch.empty_like(column) for column in columns])
    found = loss.actor(torch.zeros(1), 0.0)
    least, index = torch.min(torch.cat(columns, dim=1), dim=1)
    assert [len(rows) for rows in picked(loss)] == [int(k == index) for k in range(3)]
    assert found == pytest.approx(-least.item(), nan_ok=True)


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh])
def test_gradients_of_actions_are_autograds_for_the_chosen_rows(activation):
    model = sac(policy_kwargs={"activation_fn": activation, "net_arch": [9, 7]})
    network, q = model.policy.networks["qf0"], model.critic.qf0
    inputs = torch.randn(6, 4, requires_grad=True)
    chosen = torch.tensor([1, 2, 5])
    q(inputs)[chosen].sum().backward()
    one, count = MLPPass(PlainMLP(network.layers, [q[-1]]), 6), torch.tensor(3)
    found, room = torch.zeros(6, 1), torch.empty(6, 1)
    numbers = [one.table.ctypes.data, chosen.data_ptr(), count.data_ptr(), 1.0, 3, found.data_ptr(), room.data_ptr()]
    one(inputs.detach())
    one.native.input_gradient(table(numbers).ctypes.data)
    inputs.grad[[0, 3, 4]] = 0  # the others are left alone
    torch.testing.assert_close(found, inputs.grad[:, -1:])


@pytest.mark.parametrize("tau", [0.0, 0.005, 1.0])
def test_targets_follow_as_in_stock(tau):
    sources, targets = ([torch.randn(n) for n in (1, 300)] for _ in range(2))
    expected = [target.clone() for target in targets]
    polyak_update(sources, expected, tau)
    Polyak(sources, targets)(tau)
    torch.testing.assert_close(targets, expected)


def held(model):
    return {name: getattr(model.replay_buffer, name).dtype for name in ("observations", "next_observations")}


def test_observations_are_kept_in_single_precision_where_nothing_reads_more():
    single, double = np.dtype(np.float32), np.dtype(np.float64)
    model = sac(Robot())
    assert {*held(model).values()} == {single}
    model.learn(40)
    model.set_env(VecNormalize(DummyVecEnv([Robot]), norm_obs=False))
    assert {*held(model).values()} == {single}
    kept = model.replay_buffer.observations.copy()
    model.set_env(VecNormalize(DummyVecEnv([Robot])))
    assert {*held(model).values()} == {double}
    assert np.array_equal(model.replay_buffer.observations, kept)
    assert {*held(sac(VecNormalize(DummyVecEnv([Robot])))).values()} == {double}
    assert sac(ContinuousImages(), policy="CnnPolicy").replay_buffer.observations.dtype == np.uint8


def test_what_is_sampled_is_what_stock_samples():
    import stable_baselines3

    kwargs = {"learning_starts": 30, "buffer_size": 100, "seed": 0, "train_freq": 99}
    stock = stable_baselines3.SAC("MlpPolicy", Robot(), **kwargs).learn(40)
    ours = SAC("MlpPolicy", Robot(), **kwargs).learn(40)
    found = []
    for model in (stock, ours):
        np.random.seed(1)  # noqa: NPY002  # SB3's stream
        found.append(model.replay_buffer.sample(64))
    for one, other in zip(*found, strict=True):
        assert (one is None and other is None) or torch.equal(one.float(), other.float())


@pytest.mark.parametrize("added", [5, 12])
def test_transitions_are_those_that_the_buffer_would_sample(added):
    robot, random = Robot(), np.random.default_rng(0)
    buffer = ReplayBuffer(24, robot.observation_space, robot.action_space, "cpu", n_envs=3)
    fit(buffer, None)
    for _ in range(added):  # 8 fill it
        observations, actions = random.normal(size=(2, 3, 27)), random.normal(size=(3, 8))
        dones = random.random(3) < 0.6
        timeouts = [{"TimeLimit.truncated": bool(done and random.random() < 0.5)} for done in dones]
        buffer.add(*observations, actions, random.normal(size=3), dones, timeouts)
    assert buffer.timeouts.any()
    pairs, actions, rewards, dones = (torch.zeros(*shape) for shape in ((80, 35), (40, 8), (40, 1), (40, 1)))
    ours = Transitions(pairs, actions, rewards, dones)
    assert ours.fits(buffer, None)
    np.random.seed(2)  # noqa: NPY002  # SB3's stream
    ours(buffer)
    np.random.seed(2)  # noqa: NPY002
    theirs = buffer.sample(40)
    assert torch.equal(pairs[:40, :27], theirs.observations)
    assert torch.equal(pairs[40:, :27], theirs.next_observations)
    assert not pairs[:, 27:].any()
    assert torch.equal(actions, theirs.actions)
    assert torch.equal(rewards, theirs.rewards)
    assert torch.equal(dones, theirs.dones)
    assert 0 < dones.sum() < buffer.dones.sum() * 5


def test_other_buffers_are_asked_themselves():
    pairs, actions, numbers = torch.zeros(8, 35), torch.zeros(4, 8), torch.zeros(4, 1)
    spaces_ = Robot.observation_space, Robot.action_space
    ours, wide = (Transitions(pairs.to(kind), actions, numbers, numbers) for kind in (torch.float32, torch.float64))
    buffer = ReplayBuffer(24, *spaces_)
    assert not ours.fits(buffer, None)  # in double precision as yet
    fit(buffer, None)
    assert ours.fits(buffer, None)
    assert not wide.fits(buffer, None)
    assert not ours.fits(buffer, VecNormalize(DummyVecEnv([Robot])))
    assert not ours.fits(NStepReplayBuffer(24, *spaces_), None)
    compact = ReplayBuffer(24, *spaces_, optimize_memory_usage=True, handle_timeout_termination=False)
    fit(compact, None)
    assert compact.observations.dtype == np.float32
    assert not ours.fits(compact, None)
