"""Continual backprop against its steady state, exact counts and hand arithmetic."""

import math
from fractions import Fraction

import pytest
import torch
from torch import nn

from plasticity import ContinualBackprop, ContinualBackpropConfig, HiddenLayer, Network, Reader, UnitAdam, attach
from tests.plasticity.models import mlp, network, train


class Idle(torch.optim.Optimizer):
    """An optimizer that leaves weights alone, to look at continual backprop by itself."""

    def __init__(self, parameters):
        super().__init__(parameters, {"lr": 0.0})

    def step(self, closure=None):
        pass


def one_layer(units, **settings):
    """A network of one hidden layer, and a function that makes one gradient step and returns the units replaced."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(1, units), nn.ReLU(), nn.Linear(units, 1))
    net = network(model, Idle(model.parameters()))
    cbp = ContinualBackprop(net.layers, mean_transfer=False, **settings)
    state = cbp.state(net.layers[0])

    def step():
        before = int(state.replaced)
        net.activations["0"] = torch.ones(1, units)
        with torch.no_grad():
            cbp.after_step(net)
        return int(state.replaced) - before

    return step, state, net, cbp


@pytest.mark.parametrize(
    ("rate", "maturity"),
    [
        *((1e-2, 100), (1e-3, 100)),
        *(pytest.param(*longer, marks=pytest.mark.slow) for longer in ((1e-3, 1000), (1e-2, 400))),
    ],
)
def test_the_steady_state_is_what_the_rule_says(rate, maturity):
    step, state, *_ = one_layer(256, replacement_rate=rate, maturity=maturity, utility="random")
    for _ in range(10 * maturity):
        step()
    counts, eligible, steps = [], 0, 40 * maturity
    for _ in range(steps):
        eligible += int((state.age + 1 > maturity).sum())
        counts.append(step())
    assert sum(counts) / steps == pytest.approx(rate * 256 / (1 + rate * maturity), rel=1e-3)
    assert eligible / steps / 256 == pytest.approx(1 / (1 + rate * maturity), rel=1e-3)
    assert max(counts) <= math.ceil(rate * 256)


@pytest.mark.parametrize(
    ("rate", "units", "maturity"),
    [(1e-3, 256, 7), (0.1, 1, 5), (0.1, 10, 3), (1e-2, 100, 2), (1.0, 4, 3), (0.3, 7, 0), (1e-4, 256, 11)],
)
def test_the_first_replacement_comes_exactly_when_it_is_due(rate, units, maturity):
    step, *_ = one_layer(units, replacement_rate=rate, maturity=maturity)
    first = maturity + math.ceil(1 / (Fraction(str(rate)) * units))
    counts = [step() for _ in range(first)]
    assert counts[:-1] == [0] * (first - 1)
    assert counts[-1] >= 1


def test_no_replacement_is_ever_lost():
    step, *_ = one_layer(10, replacement_rate=0.1, maturity=0, utility="weight")
    assert [step() for _ in range(50)] == [1] * 50  # 10 additions of 0.1 make 1, in floats they do not
    step, *_ = one_layer(10, replacement_rate=0.35, maturity=0)
    assert sum(step() for _ in range(40)) == 140  # truncating each step would make 120


def test_rate_zero_and_a_young_layer_replace_nothing():
    step, state, *_ = one_layer(5, replacement_rate=0.0, maturity=0)
    assert sum(step() for _ in range(50)) == 0
    step, state, *_ = one_layer(5, replacement_rate=1.0, maturity=10)
    assert [step() for _ in range(11)] == [0] * 10 + [5]
    assert state.budget == 0  # none accrues while nothing is eligible


def test_stochastic_rounding_keeps_the_rate_within_four_sigma():
    step, *_ = one_layer(10, replacement_rate=0.13, maturity=0, rounding="stochastic")
    counts = [step() for _ in range(1000)]
    assert set(counts) == {1, 2}
    assert abs(sum(counts) - 1000 * 1.3) < 4 * math.sqrt(1000 * 0.3 * 0.7)


def test_the_least_useful_mature_units_go_and_the_rest_stay():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 5), nn.ReLU(), nn.Linear(5, 1))
    net = network(model, Idle(model.parameters()))
    cbp = ContinualBackprop(net.layers, replacement_rate=0.4, maturity=0, mean_transfer=False)
    model[2].weight.data = torch.tensor([[3.0, 1.0, 5.0, 2.0, 4.0]])
    net.activations["0"] = torch.tensor([[1.0, 1.0, 1.0, -1.0, 1.0], [1.0, 1.0, 1.0, 1.0, 1.0]])
    before = model[0].weight.detach().clone()
    with torch.no_grad():
        cbp.after_step(net)
    assert model[2].weight.tolist() == [[3, 0, 5, 0, 4]]  # contribution 3, 1, 5, 2, 4: the two lowest went
    assert cbp.state(net.layers[0]).age.tolist() == [1, 0, 1, 0, 1]
    moved = (model[0].weight != before).all(1)
    assert moved.tolist() == [False, True, False, True, False]
    assert model[0].bias[[1, 3]].tolist() == [0, 0]


def test_a_constant_unit_has_its_utility_from_the_first_step_on():
    step, state, net, _cbp = one_layer(3, replacement_rate=0.0)
    net.layers[0].readers[0].linear.weight.data = torch.tensor([[2.0, -0.5, 1.0]])
    for _ in range(5):
        step()
        assert torch.allclose(state.corrected(state.utility, 0.99), torch.tensor([2.0, 0.5, 1.0]))


def test_decay_zero_looks_at_this_minibatch_only():
    step, state, net, cbp = one_layer(2, decay=0.0, replacement_rate=0.0)
    step()
    net.activations["0"] = torch.tensor([[5.0, 7.0]])
    with torch.no_grad():
        cbp.after_step(net)
    out = net.layers[0].readers[0].linear.weight.detach().abs()[0]
    assert torch.allclose(state.corrected(state.utility, 0.0), out * torch.tensor([5.0, 7.0]))
    assert torch.allclose(state.mean_activation, torch.tensor([5.0, 7.0]))


def test_the_running_means_follow_their_recursion():
    _step, state, net, cbp = one_layer(2, decay=0.9, replacement_rate=0.0)
    net.layers[0].readers[0].linear.weight.data = torch.tensor([[2.0, -3.0]])
    u, f = torch.zeros(2), torch.zeros(2)
    for i in range(6):
        h = torch.tensor([[1.0 + i, -2.0], [3.0, i]])
        net.activations["0"] = h
        with torch.no_grad():
            cbp.after_step(net)
        u = 0.9 * u + 0.1 * torch.tensor([2.0, 3.0]) * h.abs().mean(0)
        f = 0.9 * f + 0.1 * h.mean(0)
    assert torch.allclose(state.utility, u)
    assert torch.allclose(state.mean_activation, f)
    assert torch.allclose(state.corrected(state.utility, 0.9), u / (1 - 0.9**6))


def test_ties_are_broken_at_random_by_its_own_stream():
    torch.manual_seed(123)
    before = torch.get_rng_state()

    def dead_units_replaced(seed):
        step, state, net, _ = one_layer(40, replacement_rate=0.25, maturity=0, seed=seed)
        net.layers[0].readers[0].linear.weight.data.zero_()
        step()
        return tuple((state.age == 0).nonzero().flatten().tolist())

    picks = {dead_units_replaced(seed) for seed in range(5)}
    assert len(picks) == 5
    assert dead_units_replaced(0) == dead_units_replaced(0)
    assert all(len(pick) == 10 and pick != tuple(range(10)) for pick in picks)
    torch.manual_seed(123)
    assert torch.equal(before, torch.get_rng_state())


def test_fresh_weights_fill_the_initial_distribution():
    step, _state, net, _ = one_layer(400, replacement_rate=1.0, maturity=0, init="kaiming")
    step()
    weight = net.layers[0].weight.detach()
    bound = math.sqrt(2) * math.sqrt(3)
    assert weight.abs().max() <= bound
    assert weight.abs().max() > 0.97 * bound
    assert abs(weight.mean()) < 4 * bound / math.sqrt(3 * 400)


def test_the_mean_is_transferred_before_it_is_forgotten():
    model = mlp((3, 4, 1))
    net = network(model, Idle(model.parameters()))
    cbp = ContinualBackprop(net.layers, replacement_rate=0.25, maturity=2, decay=0.9)
    h = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    out, bias = model[2].weight.detach().clone(), model[2].bias.detach().clone()
    for _ in range(3):
        net.activations["0"] = h
        with torch.no_grad():
            cbp.after_step(net)
    gone = int((cbp.state(net.layers[0]).age == 0).nonzero())
    assert torch.allclose(model[2].bias, bias + out[:, gone] * h[0, gone])
    assert cbp.telemetry()["0/output_change"] == pytest.approx(0, abs=1e-6)  # the unit was constant
    assert cbp.telemetry()["0/replaced"] == 1


def test_attached_it_acts_after_each_step_and_no_more_once_removed():
    model = mlp()
    optimizer = UnitAdam(model.parameters())
    net = network(model, optimizer)
    cbp = ContinualBackprop(net.layers, replacement_rate=0.5, maturity=0)
    handle = attach(cbp, net)
    train(model, optimizer, 4)
    assert cbp.telemetry()["0/replaced"] == 12
    assert cbp.telemetry()["1/replaced"] == 10
    handle.remove()
    train(model, optimizer, 4)
    assert cbp.telemetry()["0/replaced"] == 12


def test_a_saved_and_loaded_run_goes_on_bit_for_bit():
    def build():
        model = mlp()
        optimizer = UnitAdam(model.parameters())
        net = network(model, optimizer)
        cbp = ContinualBackprop(net.layers, replacement_rate=0.07, maturity=3, seed=4)
        attach(cbp, net)
        return model, optimizer, cbp

    one, two = build(), build()
    train(one[0], one[1], 20)
    for saved, fresh in zip(one, two, strict=True):
        fresh.load_state_dict(saved.state_dict())
    train(one[0], one[1], 20, seed=2), train(two[0], two[1], 20, seed=2)
    assert all(torch.equal(a, b) for a, b in zip(one[0].parameters(), two[0].parameters(), strict=True))
    assert one[2].telemetry() == two[2].telemetry()
    assert one[2].telemetry()["0/replaced"] > 5


def test_published_behaviour_keeps_the_optimizers_state():
    model = mlp()
    optimizer = UnitAdam(model.parameters())
    net = network(model, optimizer)
    attach(ContinualBackprop(net.layers, replacement_rate=0.5, maturity=0, reset_optimizer="none"), net)
    train(model, optimizer, 4)
    assert (optimizer.steps(model[0].weight) == 4).all()


def test_replicas_keep_budgets_of_their_own_and_equal_single_networks():
    def layer(replicas):
        torch.manual_seed(0)
        linear, out = nn.Module(), nn.Module()
        linear.weight = nn.Parameter(torch.randn(1, 6, 2).repeat(replicas, 1, 1))
        linear.bias = nn.Parameter(torch.zeros(replicas, 6))
        out.weight = nn.Parameter(torch.randn(1, 1, 6).repeat(replicas, 1, 1))
        out.bias = nn.Parameter(torch.zeros(replicas, 1))
        parameters = [linear.weight, linear.bias, out.weight, out.bias]
        hidden = HiddenLayer("h", linear, nn.ReLU(), (Reader(out),))
        return Network("n", [hidden], [Idle(parameters)])

    net = layer(3)
    cbp = ContinualBackprop(net.layers, replacement_rate=0.1, maturity=4)
    state = cbp.state(net.layers[0])
    random = torch.Generator().manual_seed(0)
    for _ in range(40):
        net.activations["h"] = torch.rand(1, 3, 6, generator=random)
        with torch.no_grad():
            cbp.after_step(net)
    single = layer(1)
    alone = ContinualBackprop(single.layers, replacement_rate=0.1, maturity=4)
    for _ in range(40):
        single.activations["h"] = torch.rand(1, 1, 6)
        with torch.no_grad():
            alone.after_step(single)
    count = alone.telemetry()["h/replaced"]
    assert count > 10
    assert int(state.replaced) == 3 * count
    assert (state.budget == alone.state(single.layers[0]).budget).all()


def test_a_padded_reader_is_warned_of_once_and_named():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 3, padding=1), nn.ReLU(), nn.Conv2d(2, 1, 1))
    net = network(model)
    with pytest.warns(UserWarning, match="left out for readers of layers 0: a padded convolution"):
        ContinualBackprop(net.layers)
    ContinualBackprop(net.layers, mean_transfer=False)


def test_wrong_settings_are_named_all_at_once():
    with pytest.raises(ValueError, match="replacement_rate must be in") as error:
        ContinualBackpropConfig(replacement_rate=1.5, maturity=-1, utility="contributoin", decay=float("nan"))
    assert str(error.value).splitlines() == [
        "replacement_rate must be in [0, 1], got 1.5",
        "maturity must be in [0, inf), got -1",
        "decay must be finite, got nan",
        'unknown utility "contributoin": allowed are weight, contribution, adaptation, zero_contribution, '
        'adaptable_contribution, feature_by_input, random; did you mean "contribution"?',
    ]


def act(cbp, net, h):
    net.activations["0"] = h
    with torch.no_grad():
        cbp.after_step(net)


def test_a_young_unit_is_ranked_by_its_corrected_utility():
    _step, state, net, cbp = one_layer(2, replacement_rate=0.5, maturity=0, decay=0.99)
    net.layers[0].readers[0].linear.weight.data = torch.tensor([[1.0, 1.0]])
    state.age.copy_(torch.tensor([1000, 1]))  # unit 1 is young: its running mean has seen little
    state.utility.copy_(torch.tensor([1.0, 0.01 * 5.0]))  # ... but it is five times as useful
    state.budget.fill_(0)
    act(cbp, net, torch.tensor([[1.0, 5.0]]))
    assert state.age.tolist() == [0, 2]


def test_the_deviation_is_from_the_corrected_mean():
    _step, state, net, cbp = one_layer(1, replacement_rate=0.0, utility="zero_contribution")
    act(cbp, net, torch.tensor([[3.0], [3.0]]))  # constant: its corrected mean is 3 at once, the raw one 0.03
    assert state.utility.item() == pytest.approx(0.0, abs=1e-6)


def test_a_replaced_unit_forgets_its_utility_and_mean():
    _step, state, net, cbp = one_layer(4, replacement_rate=0.25, maturity=0)
    act(cbp, net, torch.tensor([[1.0, 2.0, 3.0, 4.0]]))
    young = state.age == 0
    assert young.sum() == 1
    assert (state.utility[young] == 0).all()
    assert (state.mean_activation[young] == 0).all()
    assert (state.utility[~young] > 0).all()
    assert (state.mean_activation[~young] > 0).all()


def test_a_budget_saved_under_another_rate_keeps_its_worth():
    step, state, net, cbp = one_layer(20, replacement_rate=1e-4, maturity=0)
    for _ in range(490):
        step()
    assert int(state.replaced) == 0  # 0.98 of a unit so far
    _, other, _, loaded = one_layer(20, replacement_rate=0.1, maturity=1_000_000)
    loaded.load_state_dict(cbp.state_dict())
    assert int(other.budget) / int(other.denominator) == pytest.approx(0.9)  # rounded down to tenths
    with torch.no_grad():
        net.activations["0"] = torch.ones(1, 20)
        loaded.after_step(net)
    assert int(other.replaced) == 0


def test_rates_too_small_to_count_and_misspelt_settings_are_named():
    with pytest.raises(ValueError, match="replacement_rate must be 0 or at least 1e-12, got 1e-13"):
        ContinualBackpropConfig(replacement_rate=1e-13)
    with pytest.raises(ValueError, match=r'unknown setting "replacment_rate": .*did you mean "replacement_rate"'):
        ContinualBackprop([], replacment_rate=1e-3)
