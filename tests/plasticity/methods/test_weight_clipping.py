"""Weight clipping: bounds by hand; a bias by its own layer's fan-in; never a log standard deviation."""

import math

import pytest
import torch
from torch import nn

from plasticity import Network, WeightClipping, attach, hidden_layers
from tests.plasticity.models import mlp, network


def clip(model, net=None, **settings):
    net = net or network(model)
    method = WeightClipping(net, **settings)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.where(torch.arange(parameter.numel()) % 2 > 0, 100.0, -100.0).view(parameter.shape))
        method.after_step(net)
    return method


def test_a_bias_has_the_fan_in_bound_of_its_own_layer():
    model = mlp((4, 9, 25, 2))
    clip(model, zeta=2.0)
    for place, fan_in in ((0, 4), (2, 9), (4, 25)):
        for parameter in model[place].parameters():
            torch.testing.assert_close(parameter.abs(), torch.full_like(parameter, 2 / math.sqrt(fan_in)))
            assert (parameter > 0).any()
            assert (parameter < 0).any()


def test_kernels_count_their_whole_fan_in():
    model = nn.Sequential(nn.Conv2d(2, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2))
    clip(model, zeta=1.0)
    assert model[0].weight.max().item() == pytest.approx(1 / math.sqrt(8))
    assert model[0].bias.max().item() == pytest.approx(1 / math.sqrt(8))
    assert model[3].weight.max().item() == pytest.approx(1 / math.sqrt(12))


def test_weights_inside_keep_every_bit_and_torchs_own_initialisation_is_inside():
    model = mlp()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    with torch.no_grad():
        WeightClipping(network(model), zeta=1.0001).after_step(network(model))
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_log_std_and_norms_are_left_alone_and_it_acts_after_the_step():
    model = nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Tanh(), nn.Linear(6, 2))
    log_std = nn.Parameter(torch.full((2,), 7.0))
    with torch.no_grad():
        model[1].weight.fill_(7.0)
    optimizer = torch.optim.SGD([*model.parameters(), log_std], lr=1.0)
    net = Network("n", hidden_layers(model), [optimizer], log_std=[log_std])
    attach(WeightClipping(net, zeta=3.0), net)
    for parameter in (*model.parameters(), log_std):
        parameter.grad = torch.zeros_like(parameter)
    model[0].weight.grad.fill_(50)
    optimizer.step()
    torch.testing.assert_close(model[0].weight, torch.full((6, 4), -1.5))
    assert (log_std == 7).all()
    assert (model[1].weight == 7).all()


def test_output_layers_may_be_left_alone():
    model = mlp((4, 9, 2))
    clip(model, heads=False)
    assert model[0].weight.max().item() == pytest.approx(1.5)
    assert (model[2].weight.abs() == 100).all()
    assert (model[2].bias.abs() == 100).all()


def test_the_bound_is_that_of_the_layer_as_built_and_saved():
    model = mlp((4, 9, 2))
    bound = math.sqrt(3 * model[0].weight.square().mean().item())
    method = clip(model, init="network", zeta=2.0)
    assert model[0].weight.max().item() == pytest.approx(2 * bound)
    assert model[0].bias.max().item() == pytest.approx(2 * bound)
    other = WeightClipping(network(model), init="network")
    assert not torch.equal(other.bounds, method.bounds)
    other.load_state_dict(method.state_dict())
    assert torch.equal(other.bounds, method.bounds)
