"""ReDo, L2, Shrink and Perturb, the combinators, and what holds for every method of the registry."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from plasticity import (
    L2,
    METHODS,
    Chain,
    ContinualBackpropConfig,
    Every,
    Intervention,
    L2Config,
    Network,
    ReDo,
    SettingsError,
    ShrinkAndPerturb,
    StepMetrics,
    UnitAdam,
    attach,
    build_intervention,
    hidden_layers,
    initialise,
    method_config,
    method_configs,
    uniform_bound,
)
from tests.plasticity.models import mlp, network, train

# settings under which each method must change nothing at all, and such that it acts within a few steps
IDENTITY = {
    "cbp": {"replacement_rate": 0.0},
    "redo": {"threshold": 0.0, "period": 2},  # tanh units are never exactly 0
    "l2": {"strength": 0.0},
    "shrink_and_perturb": {"shrink": 1.0, "perturb": 0.0, "period": 2},
}
ACTIVE = {
    "cbp": {"replacement_rate": 0.05, "maturity": 2},
    "redo": {"threshold": 0.9, "period": 3},
    "l2": {"strength": 0.1},
    "shrink_and_perturb": {"shrink": 0.9, "perturb": 0.1, "period": 3},
}


def run(method, options, steps=10, seed=0, log_std=False, model=None):
    model = mlp(activation=nn.Tanh) if model is None else model
    free = nn.Parameter(torch.zeros(2))
    optimizer = UnitAdam([*model.parameters(), free], lr=0.01)
    free.grad = torch.zeros(2)
    net = Network("net", hidden_layers(model), [optimizer], log_std=[free])
    intervention = build_intervention({method: options} if method else None, net, seed)
    attach(intervention, net)
    train(model, optimizer, steps)
    return model, optimizer, intervention, free


def same(one, two):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_every_method_has_its_rows_here():
    assert set(IDENTITY) == set(ACTIVE) == set(METHODS)


@pytest.mark.parametrize("method", METHODS)
def test_strength_zero_is_the_identity_bit_for_bit(method):
    assert same(run(method, IDENTITY[method])[0], run(None, {})[0])


@pytest.mark.parametrize("method", METHODS)
def test_active_it_changes_the_network_and_nothing_outside_it(method):
    model, *_, free = run(method, ACTIVE[method])
    assert not same(model, run(None, {})[0])
    assert (free == 0).all()  # log standard deviations are left alone unless asked


@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_repeats_and_another_one_does_not(method):
    assert same(run(method, ACTIVE[method], seed=1)[0], run(method, ACTIVE[method], seed=1)[0])
    if method != "l2":  # draws nothing
        assert not same(run(method, ACTIVE[method], seed=1)[0], run(method, ACTIVE[method], seed=2)[0])


@pytest.mark.parametrize("method", METHODS)
def test_the_global_random_stream_is_untouched(method):
    model = mlp(activation=nn.Tanh)
    torch.manual_seed(9)
    before = torch.get_rng_state()
    run(method, ACTIVE[method], model=model)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("method", METHODS)
def test_state_survives_save_and_load(method, tmp_path):
    one = run(method, ACTIVE[method], steps=7)
    two = run(method, ACTIVE[method], steps=0, seed=5)
    for i, part in enumerate(one[:3]):
        torch.save(part.state_dict(), tmp_path / str(i))
        two[i].load_state_dict(torch.load(tmp_path / str(i), weights_only=True))
    train(one[0], one[1], 7, seed=3), train(two[0], two[1], 7, seed=3)
    assert same(one[0], two[0])
    assert one[2].telemetry() == two[2].telemetry()


@settings(max_examples=25, deadline=None)
@given(data=st.data(), name=st.sampled_from(sorted(METHODS)), sizes=st.lists(st.integers(1, 6), min_size=2, max_size=5))
def test_any_shape_of_network_stays_finite_and_in_its_optimizer(data, name, sizes):
    activation = data.draw(st.sampled_from([nn.ReLU, nn.Tanh, nn.GELU, nn.LeakyReLU]))
    model = mlp((3, *sizes, 2), activation)
    model, optimizer, *_ = run(name, ACTIVE[name], steps=8, model=model, seed=data.draw(st.integers(0, 2**31)))
    assert all(torch.isfinite(p).all() for p in model.parameters())
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert {id(p) for p in model.parameters()} <= held


@pytest.mark.parametrize("method", ["cbp", "redo", "shrink_and_perturb"])
def test_the_scale_of_fresh_weights_is_that_of_the_saved_network(method):
    options = ACTIVE[method] | {"init": "network"}
    one = run(method, options, steps=2)
    wide = mlp(activation=nn.Tanh)
    with torch.no_grad():
        for parameter in wide.parameters():
            parameter.mul_(50)
    two = run(method, options, steps=0, model=wide)
    for ours, theirs in zip(one[:3], two[:3], strict=True):
        theirs.load_state_dict(copy.deepcopy(ours.state_dict()))
    train(one[0], one[1], 8, seed=3), train(two[0], two[1], 8, seed=3)
    assert same(one[0], two[0])


def test_redo_recycles_channels():
    model = nn.Sequential(nn.Conv2d(1, 3, 2), nn.ReLU(), nn.Conv2d(3, 2, 2))
    net = network(model)
    with torch.no_grad():
        model[0].weight[1], model[0].bias[1] = 0.0, -1.0
    redo = ReDo(net.layers)
    model(torch.rand(4, 1, 5, 5) + 1)
    with torch.no_grad():
        model[0].weight[[0, 2]], model[0].bias[[0, 2]] = 0.5, 0.5
        net.activations["0"] = model[:2](torch.rand(4, 1, 5, 5))
        redo.after_step(net)
    assert redo.telemetry()["0/replaced"] == 1
    assert (model[2].weight[:, 1] == 0).all()


def test_the_same_method_twice_draws_differently():
    model = mlp()
    chain = build_intervention(["cbp", "cbp"], network(model), 0)
    first, second = (method.random.get_extra_state() for method in chain)
    assert not torch.equal(first, second)


def test_redo_recycles_exactly_the_dormant_units_every_period():
    model = mlp((4, 6, 2))
    net = network(model)
    with torch.no_grad():
        model[0].weight[1], model[0].bias[1] = 0.0, -1.0  # dead
        model[0].weight[4], model[0].bias[4] = 0.0, 1e-3  # dormant, not dead
        model[2].weight.fill_(1.0)
    before = model[0].weight.detach().clone()
    redo = Every(3, ReDo(net.layers, threshold=0.025))
    x = torch.randn(50, 4)
    for step in range(1, 4):
        model(x)
        with torch.no_grad():
            redo.after_step(net)
        assert redo.telemetry()["0/replaced"] == (2 if step == 3 else 0)
    assert (model[2].weight == 0).all(0).tolist() == [False, True, False, False, True, False]
    assert (model[0].weight != before).any(1).tolist() == [False, True, False, False, True, False]
    assert model[0].bias[[1, 4]].tolist() == [0, 0]
    assert model[0].weight[[1, 4]].abs().max() <= uniform_bound(mlp((4, 6, 2))[0], "network") * 1.2


def test_redo_recycles_a_layer_that_is_all_dead():
    model = mlp((4, 6, 2))
    net = network(model)
    with torch.no_grad():
        model[0].weight.zero_(), model[0].bias.fill_(-1.0)
    redo = ReDo(net.layers, init="lecun")
    model(torch.randn(5, 4))
    with torch.no_grad():
        redo.after_step(net)
    assert redo.telemetry()["0/replaced"] == 6
    assert torch.isfinite(model[0].weight).all()
    assert (model[0].weight != 0).all()


@pytest.mark.parametrize("decoupled", [False, True])
def test_l2_is_adams_weight_decay(decoupled):
    ours, theirs = mlp(), mlp()
    optimizer = UnitAdam(ours.parameters(), lr=0.01)
    attach(L2(0.1, decoupled=decoupled), network(ours, optimizer))
    stock = (torch.optim.AdamW if decoupled else torch.optim.Adam)(theirs.parameters(), lr=0.01, weight_decay=0.1)
    train(ours, optimizer, 20), train(theirs, stock, 20)
    assert same(ours, theirs)


def test_l2_leaves_biases_or_takes_log_std_when_asked():
    model, log_std = mlp(), nn.Parameter(torch.ones(2))
    for parameter in (*model.parameters(), log_std):
        parameter.grad = torch.zeros_like(parameter)
    optimizer = torch.optim.SGD([*model.parameters(), log_std], lr=1.0)
    net = Network("n", hidden_layers(model), [optimizer], log_std=[log_std])
    with torch.no_grad():
        L2(0.5, biases=False).before_step(net)
    assert (model[0].bias.grad == 0).all()
    assert torch.equal(model[4].weight.grad, 0.5 * model[4].weight)
    assert (log_std.grad == 0).all()
    with torch.no_grad():
        L2(0.5, log_std=True).before_step(net)
    assert (log_std.grad == 0.5).all()
    assert torch.equal(model[0].bias.grad, 0.5 * model[0].bias)


def test_shrink_and_perturb_mixes_with_a_fresh_network_each_time():
    model = mlp((50, 40, 30))
    net = network(model)
    method = ShrinkAndPerturb(net, shrink=0.5, perturb=0.25)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with torch.no_grad():
        method.after_step(net)
    noise = (model[0].weight - 0.5 * before["0.weight"]).detach()
    bound = 0.25 * float(before["0.weight"].square().mean().sqrt()) * 3**0.5
    assert noise.abs().max() <= bound * (1 + 1e-5)
    assert noise.abs().max() > 0.99 * bound
    assert torch.equal(model[0].bias, 0.5 * before["0.bias"])
    again = model[0].weight.detach().clone()
    with torch.no_grad():
        method.after_step(net)
    assert not torch.allclose((model[0].weight - 0.5 * again).detach(), noise)


def test_gaussian_perturbation_has_its_standard_deviation_and_spares_norms_and_log_std():
    model = nn.Sequential(nn.Linear(50, 40), nn.LayerNorm(40), nn.ReLU(), nn.Linear(40, 30))
    log_std = nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([*model.parameters(), log_std], 0.1)
    net = Network("n", hidden_layers(model), [optimizer], log_std=[log_std])
    before = model[0].weight.detach().clone()
    with torch.no_grad():
        ShrinkAndPerturb(net, shrink=1.0, perturb=0.1, noise="gaussian").after_step(net)
    assert float((model[0].weight.detach() - before).std()) == pytest.approx(0.1, rel=0.05)
    assert (model[1].weight == 1).all()
    assert (log_std == 1).all()


class Recorder(nn.Module, Intervention):
    def __init__(self, name, log):
        super().__init__()
        self.name, self.log = name, log

    def before_step(self, network):
        self.log.append(f"{self.name} before")

    def after_step(self, network):
        self.log.append(f"{self.name} after")

    def telemetry(self):
        return {self.name: 1.0}


def test_a_chain_acts_in_order_and_every_counts_gradient_steps():
    model, log = mlp(), []
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    chain = Chain([Recorder("a", log), Every(2, Recorder("b", log))])
    attach(chain, network(model, optimizer))
    train(model, optimizer, 2)
    assert log == ["a before", "a after", "a before", "b before", "a after", "b after"]
    assert chain.telemetry() == {"a": 1.0, "b": 1.0}
    assert Chain([Recorder("0/replaced", log), Recorder("0/replaced", log)]).telemetry() == {"0/replaced": 2.0}
    with pytest.raises(ValueError, match=r"period must be in \[1, inf\) gradient steps, got 0"):
        Every(0, Recorder("b", log))


def test_a_method_that_has_after_step_only_is_an_intervention():
    class Mine(nn.Module, Intervention):
        def after_step(self, network):
            network.layers[0].weight.zero_()

    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    attach(Mine(), network(model, optimizer))
    train(model, optimizer, 1)
    assert (model[0].weight == 0).all()
    assert Mine().telemetry() == {}


def test_step_metrics_measure_one_step_when_armed():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    net, metrics = network(model, optimizer), StepMetrics()
    attach(metrics, net)
    train(model, optimizer, 2)
    assert metrics.telemetry() == {}
    before = model[0].weight.detach().clone()
    metrics.arm()
    train(model, optimizer, 1, seed=8)
    numbers = metrics.telemetry()
    gradient = model[0].weight.grad
    assert numbers["0/gradient_norm"] == pytest.approx(float(gradient.norm()))
    assert numbers["0/update_ratio"] == pytest.approx(float(0.5 * gradient.norm() / before.norm()), rel=1e-4)
    assert numbers["0/zero_gradient_fraction"] == float((gradient == 0).double().mean())
    train(model, optimizer, 1, seed=9)
    assert metrics.telemetry() == numbers


def test_initial_bounds():
    layer = nn.Linear(12, 5)
    assert uniform_bound(layer, "lecun") == pytest.approx((3 / 12) ** 0.5)
    assert uniform_bound(layer, "default") == pytest.approx((1 / 12) ** 0.5)
    assert uniform_bound(layer, "kaiming", nn.ReLU()) == pytest.approx(2**0.5 * (3 / 12) ** 0.5)
    assert uniform_bound(layer, "kaiming", nn.Tanh()) == pytest.approx(5 / 3 * (3 / 12) ** 0.5)
    assert uniform_bound(layer, "xavier", nn.ReLU()) == pytest.approx(2**0.5 * (6 / 17) ** 0.5)
    assert uniform_bound(nn.Conv2d(3, 5, 2), "xavier") == pytest.approx((6 / (12 + 20)) ** 0.5)
    assert uniform_bound(nn.Conv2d(3, 5, 2), "lecun") == pytest.approx((3 / 12) ** 0.5)
    wide = nn.Linear(300, 200)
    initialise(wide, "lecun")
    assert uniform_bound(wide, "network") == pytest.approx(uniform_bound(wide, "lecun"), rel=0.02)
    assert (wide.bias == 0).all()


def test_methods_may_be_written_in_many_ways():
    config = ContinualBackpropConfig(maturity=5)
    assert method_configs(None) == method_configs("none") == method_configs({}) == []
    assert method_configs("cbp") == [ContinualBackpropConfig()]
    assert method_configs(["l2", config]) == [L2Config(), config]
    assert method_configs({"l2": {"strength": "1e-4"}, "cbp": {"maturity": "2e3"}}) == [
        L2Config(1e-4),
        ContinualBackpropConfig(maturity=2000),
    ]


def test_wrong_methods_and_settings_are_named_all_at_once():
    with pytest.raises(SettingsError, match=r'unknown method "cpb": allowed are none, cbp, .*; did you mean "cbp"'):
        method_config("cpb")
    with pytest.raises(SettingsError) as error:
        method_config("cbp", {"replacment_rate": 1, "maturity": 1.5, "decay": "x"}, "plasticity.cbp")
    assert error.value.errors == (
        'plasticity.cbp: unknown setting "replacment_rate": allowed are replacement_rate, maturity, decay, utility, '
        'init, mean_transfer, reset_optimizer, rounding; did you mean "replacement_rate"?',
        "plasticity.cbp.maturity must be a whole number, got 1.5",
        "plasticity.cbp.decay must be a number, got 'x'",
    )
    with pytest.raises(SettingsError, match=r"mean_transfer must be true or false, got 'yes'"):
        method_config("cbp", {"mean_transfer": "yes"})
    with pytest.raises(SettingsError, match="a method must be a name or a config with build"):
        method_configs(3)
    with pytest.raises(SettingsError, match="a method must be a name or a config with build"):
        method_configs(ContinualBackpropConfig)
    with pytest.raises(SettingsError, match="cbp must be a mapping of settings, got 5"):
        method_configs({"cbp": 5})
