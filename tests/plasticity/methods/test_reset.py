"""Resets: which layers start afresh, and that everything about them does."""

import math

import pytest
import torch
from torch import nn

from plasticity import Network, Reset, SettingsError, UnitAdam, hidden_layers
from plasticity.methods.reset import ResetConfig
from tests.plasticity.models import mlp, network, same, train


def act(method, net):
    with torch.no_grad():
        method.after_step(net)


def changed(model, before):
    return [not torch.equal(new, old) for new, old in zip(model.parameters(), before, strict=True)]


def snapshot(model):
    return [p.detach().clone() for p in model.parameters()]


@pytest.mark.parametrize(("layers", "expected"), [(0, 0), (1, 1), (2, 2), (3, 3), (7, 3), ("all", 3)])
def test_the_last_layers_start_afresh(layers, expected):
    model = mlp((4, 6, 5, 2))
    net, before = network(model), snapshot(model)
    act(Reset(net, layers=layers), net)
    assert changed(model, before) == [layer >= 3 - expected for layer in range(3) for _ in ("weight", "bias")]


def test_all_heads_are_one_layer_and_heads_of_other_networks_none():
    body, mu, log_std = nn.Sequential(nn.Linear(3, 4), nn.Tanh()), nn.Linear(4, 2), nn.Linear(4, 2)
    whole = nn.ModuleList([body, mu, log_std])
    optimizer = torch.optim.SGD(whole.parameters(), 0.1)
    net, before = Network("actor", hidden_layers(body, [mu, log_std]), [optimizer]), snapshot(whole)
    act(Reset(net, layers=1), net)
    assert changed(whole, before) == [False, False, True, True, True, True]
    features = Network("features", hidden_layers(body, [mu]), [optimizer], linears=[body[0]])
    before = snapshot(whole)
    act(Reset(features, layers=1), features)
    assert changed(whole, before) == [True, True, False, False, False, False]


def test_fresh_weights_have_the_first_scale_and_fresh_biases_are_zero():
    model = mlp((300, 200, 5))
    with torch.no_grad():
        model[2].weight.mul_(0.01)  # as SB3 does with a policy's head
    net = network(model)
    method = Reset(net)
    scales = [float(linear.weight.detach().square().mean().sqrt()) for linear in net.linears]
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(100.0)
    act(method, net)
    for linear, scale in zip(net.linears, scales, strict=True):
        assert linear.weight.abs().max() <= math.sqrt(3) * scale * 1.0001
        assert abs(float(linear.weight.detach().square().mean().sqrt()) / scale - 1) < 0.05
        assert (linear.bias == 0).all()
    first = model[0].weight.detach().clone()
    act(method, net)
    assert not torch.equal(model[0].weight, first)  # another draw each time


def test_the_optimizer_goes_on_as_a_new_one_would():
    model = mlp((4, 6, 5, 2))
    optimizer = UnitAdam(model.parameters(), lr=0.01)
    net = network(model, optimizer)
    train(model, optimizer, 5)
    held = [id(p) for p in optimizer.param_groups[0]["params"]]
    act(Reset(net), net)
    assert [id(p) for p in model.parameters()] == held
    other = mlp((4, 6, 5, 2))
    other.load_state_dict(model.state_dict())
    train(model, optimizer, 5, seed=3)
    train(other, torch.optim.Adam(other.parameters(), lr=0.01), 5, seed=3)
    assert same(model, other)


def test_the_optimizer_keeps_what_was_not_reset():
    model = mlp((4, 6, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    net = network(model, optimizer)
    train(model, optimizer, 5)
    act(Reset(net, layers=1), net)
    assert optimizer.state[model[0].weight]["step"] == 5
    assert model[2].weight not in optimizer.state


def test_the_optimizer_forgets_the_norms_of_reset_layers_only():
    model = nn.Sequential(
        *(nn.Linear(4, 4), nn.LayerNorm(4), nn.ReLU(), nn.Linear(4, 5), nn.LayerNorm(5), nn.ReLU(), nn.Linear(5, 1))
    )
    optimizer = UnitAdam(model.parameters())
    net = network(model, optimizer)
    train(model, optimizer, 2)
    act(Reset(net, layers=2), net)
    held = [p in optimizer.state for p in model.parameters()]
    assert held == [True] * 4 + [False] * 6


def test_the_target_network_gets_the_same_fresh_weights_and_no_others():
    def build(seed):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.LayerNorm(5), nn.ReLU(), nn.Linear(5, 1))

    model, target = build(0), build(1)
    with torch.no_grad():
        for net in (model, target):
            net[3].weight.fill_(2.0), net[3].bias.fill_(3.0)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    net = Network("qf0", hidden_layers(model), [optimizer], twins=hidden_layers(target))  # sync_twins is off
    act(Reset(net, layers=2), net)
    for module in (3, 2, 5):
        for one, two in zip(model[module].parameters(), target[module].parameters(), strict=True):
            assert torch.equal(one, two)
            assert one.data_ptr() != two.data_ptr()
    assert (target[3].weight == 1).all()
    assert (target[3].bias == 0).all()
    assert not torch.equal(model[0].weight, target[0].weight)


def test_free_log_standard_deviations_start_afresh_only_if_asked():
    model, log_std = mlp((4, 6, 2)), nn.Parameter(torch.full((2,), -0.5))
    optimizer = UnitAdam([*model.parameters(), log_std])
    net = Network("pi", hidden_layers(model), [optimizer], log_std=[log_std])
    leaves, renews = Reset(net), Reset(net, log_std=True)
    with torch.no_grad():
        log_std.fill_(2.0)
    act(leaves, net)
    assert (log_std == 2).all()
    act(renews, net)
    assert (log_std == -0.5).all()


def test_wrong_settings_are_named():
    with pytest.raises(SettingsError, match=r"layers must be in \[0, inf\), got -1"):
        ResetConfig(layers=-1)
    with pytest.raises(SettingsError, match=r'layers must be a number or "all", got \'last\''):
        ResetConfig(layers="last")
    assert ResetConfig(period="change").period == "change"
