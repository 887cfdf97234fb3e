"""Wasserstein regularisation adds the gradient of lambda / 2 * ||sort(theta) - sort(theta_0)||^2, layer by layer."""

import copy

import pytest
import torch
from torch import nn

from plasticity import HiddenLayer, L2Init, Network, Reader, Wasserstein
from plasticity.methods.wasserstein import _as_integers
from tests.plasticity.models import mlp, network


def gradients(method, model, net=None):
    model.zero_grad(set_to_none=False)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    with torch.no_grad():
        method.before_step(net or network(model))
    return [parameter.grad.clone() for parameter in model.parameters()]


@pytest.fixture
def convolutional():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2))


def test_it_is_the_gradient_of_the_penalty(convolutional):
    method, first = Wasserstein(network(convolutional), 0.3), copy.deepcopy(convolutional)
    with torch.no_grad():
        for parameter in convolutional.parameters():
            parameter.add_(torch.randn_like(parameter))
    pairs = zip(convolutional.parameters(), first.parameters(), strict=True)
    penalty = sum((p.flatten().sort().values - q.detach().flatten().sort().values).square().sum() for p, q in pairs)
    expected = torch.autograd.grad(0.3 / 2 * penalty, list(convolutional.parameters()))
    for ours, theirs in zip(gradients(method, convolutional), expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_permuted_weights_pay_nothing_where_l2_init_pulls_them_back():
    model = mlp()
    wasserstein, l2_init = Wasserstein(network(model), 1.0), L2Init(network(model), 1.0)
    with torch.no_grad():
        weight = model[0].weight
        weight.copy_(weight.flatten()[torch.randperm(weight.numel())].view_as(weight))
    assert all((gradient == 0).all() for gradient in gradients(wasserstein, model))
    assert (gradients(l2_init, model)[0] != 0).any()


def test_three_weights_by_hand():
    model = nn.Sequential(nn.Linear(3, 1, bias=False), nn.ReLU(), nn.Linear(1, 1, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, 3.0, 2.0]]))
        method = Wasserstein(network(model), 0.5)
        model[0].weight.copy_(torch.tensor([[7.0, 2.5, 0.0]]))  # ranks 3, 2, 1: the goals are 3, 2, 1
    assert torch.equal(gradients(method, model)[0], torch.tensor([[2.0, 0.25, -0.5]]))


def test_networks_side_by_side_are_sorted_each_by_itself():
    singles = [mlp((3, 4, 1), seed=seed) for seed in range(3)]
    linear, reader = nn.Linear(3, 4), nn.Linear(4, 1)
    for place, module in ((0, linear), (2, reader)):
        module.weight = nn.Parameter(torch.stack([single[place].weight.detach() for single in singles]))
        module.bias = nn.Parameter(torch.stack([single[place].bias.detach() for single in singles]))
    together = nn.Sequential(linear, nn.ReLU(), reader)
    layer = HiddenLayer("0", linear, together[1], (Reader(reader),))
    net = Network("net", [layer], [torch.optim.SGD(together.parameters(), lr=0.1)])
    method, apart = Wasserstein(net, 0.5), [Wasserstein(network(single), 0.5) for single in singles]
    with torch.no_grad():
        for single_and_joint in zip(together.parameters(), *(s.parameters() for s in singles), strict=True):
            noise = torch.randn_like(single_and_joint[0])
            single_and_joint[0].add_(noise)
            for parameter, part in zip(single_and_joint[1:], noise, strict=True):
                parameter.add_(part)
    expected = [gradients(one, single) for one, single in zip(apart, singles, strict=True)]
    for ours, *theirs in zip(gradients(method, together, net), *expected, strict=True):
        torch.testing.assert_close(ours, torch.stack(theirs))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_integers_have_the_order_of_the_numbers(dtype):
    extremes = [0.0, -0.0, torch.inf, -torch.inf, torch.finfo(dtype).tiny, -torch.finfo(dtype).tiny, 1.0, -1.0]
    random = torch.Generator().manual_seed(0)
    values = torch.cat([torch.tensor(extremes), torch.randn(40_000, generator=random)]).to(dtype)
    order = _as_integers(values).argsort()
    assert torch.equal(values[order], values.sort().values)


def test_the_first_weights_are_saved():
    one, two = Wasserstein(network(mlp())), Wasserstein(network(mlp(seed=1)))
    two.load_state_dict(one.state_dict())
    for a, b in zip(one.sorted, two.sorted, strict=True):
        assert torch.equal(a, b)


def test_biases_may_be_left_alone():
    model = mlp()
    method = Wasserstein(network(model), 0.5, biases=False)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    weight, bias, *_ = gradients(method, model)
    torch.testing.assert_close(weight, torch.full_like(weight, 0.5))
    assert (bias == 0).all()
